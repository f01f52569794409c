"""Scores of GenEval's results with intervals over prompts, and paired differences of two results."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffusion.metrics.geneval import TASKS, Scores, scores
from diffusion.metrics.prompted_images import bootstrap_over_prompts
from diffusion.metrics.statistics import Interval

Prompt = tuple[str, str]  # tag and text


class Summary(NamedTuple):
    """Scores with 95 % bootstrap intervals of each task and of "overall", and shares of correct images and prompts.

    A prompt is correct if any of its images is.
    """

    scores: Scores
    intervals: dict[str, Interval]
    images: float
    prompts: float
    counts: dict[str, int]  # images by task


class Comparison(NamedTuple):
    """Differences first - second over common prompts, of each task and "overall", and the number of other prompts."""

    intervals: dict[str, Interval]
    prompts: int
    left_out: int


def read_results(path: str | Path) -> list[dict]:
    """Return the images of a results.jsonl, also of one that the published scripts wrote.

    Raises:
      ValueError: if there is no such file, or naming the first line that is no result.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"results: '{path}' is not a file; pass a folder of images or its results.jsonl")
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    found = [parsed(line) for line in lines]
    for number, result in enumerate(found, 1):
        if result is None:
            raise ValueError(
                f"results: line {number} of '{path}' is not a result of GenEval; delete the file and score the images"
            )
    if not found:
        raise ValueError(f"results: '{path}' is empty; score the images of its folder")
    return [result for result in found if result is not None]


def parsed(line: str) -> dict | None:
    """Return the result of a line, or None if it is none."""
    try:
        result = json.loads(line)
    except (ValueError, RecursionError):
        return None
    fields = {"filename": str, "tag": str, "prompt": str, "correct": bool, "metadata": str}
    whole = isinstance(result, dict) and all(isinstance(result.get(name), kind) for name, kind in fields.items())
    return result if whole and result["tag"] in TASKS else None


def by_prompt(results: Sequence[dict]) -> dict[Prompt, list[bool]]:
    """Return the verdicts of each prompt."""
    found: dict[Prompt, list[bool]] = {}
    for result in results:
        found.setdefault((result["tag"], result["prompt"]), []).append(result["correct"])
    return found


def summarize(results: Sequence[dict]) -> Summary:
    """Return the scores of results.

    Raises:
      ValueError: if there are none.
    """
    tags = [result["tag"] for result in results]
    total = scores(tags, [result["correct"] for result in results])
    prompts = by_prompt(results)
    values = [(*prompt, float(np.mean(verdicts))) for prompt, verdicts in prompts.items()]
    images = float(np.mean([result["correct"] for result in results]))
    any_correct = float(np.mean([any(verdicts) for verdicts in prompts.values()]))
    return Summary(total, intervals(values), images, any_correct, {task: tags.count(task) for task in total.tasks})


def intervals(values: Sequence[tuple[str, str, float]]) -> dict[str, Interval]:
    """Return intervals of each task, and of the unweighted mean over tasks as "overall"."""
    tasks = [task for task in TASKS if any(task == tag for tag, _, _ in values)]
    alone = {task: bootstrap_over_prompts(each for each in values if each[0] == task) for task in tasks}
    return alone | {"overall": bootstrap_over_prompts(values)}


def compare(first: Sequence[dict], second: Sequence[dict]) -> Comparison:
    """Return the differences of the scores of two results over their common prompts.

    Prompts are resampled in pairs, so that what makes a prompt easy for both cancels.

    Raises:
      ValueError: if no prompt is common.
    """
    ours, others = by_prompt(first), by_prompt(second)
    common = [prompt for prompt in ours if prompt in others]
    if not common:
        raise ValueError("--baseline: has no prompt in common with --images; pass images of the same prompts")
    differences = [(*prompt, float(np.mean(ours[prompt]) - np.mean(others[prompt]))) for prompt in common]
    return Comparison(intervals(differences), len(common), len(ours) + len(others) - 2 * len(common))
