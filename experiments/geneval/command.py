"""The verb `geneval`: GenEval's scores of a folder of images, and their difference from those of another."""

import os
import sys
from pathlib import Path

from tabulate import tabulate

from diffusion.data.geneval import PromptImages, read_prompts, read_tree
from experiments.contents import content_hash
from experiments.geneval.colors import Colors, color_classifier
from experiments.geneval.detector import RANDOM, RANDOM_LABEL, load_detector
from experiments.geneval.score import RESULTS, colored_classes, score_images
from experiments.geneval.summary import Comparison, Summary, compare, read_results, summarize


def run(images: str, prompts: str, detector: str, clip: str, baseline: str) -> None:
    """Score a folder of images, write its results.jsonl, and print scores with 95 % intervals over prompts.

    `baseline` is another folder, which is scored in the same way, or a results.jsonl.

    Raises:
      ValueError: for a flag that is missing, and for wrong files, before any image is scored.
    """
    if not images:
        raise ValueError("--images: missing; pass --images=FOLDER, which holds 00000/samples/0000.png")
    if not detector:
        raise ValueError(
            "--detector: missing; pass --detector=FOLDER with mask2former-swin-small-coco-instance, or "
            "--detector=random to try the command out"
        )
    wanted = read_prompts(prompts) if prompts else None
    trees = {Path(images): read_tree(images, wanted)}
    others = None
    if baseline and Path(baseline).is_dir():
        trees[Path(baseline)] = read_tree(baseline, wanted)
    elif baseline:
        others = read_results(baseline)
    for root, tree in trees.items():
        check_tree(root, tree, clip)
    found, colors, label = load_detector(detector)._replace(label=label_of(detector)), load_colors(clip), label_of(clip)
    results = {root: score_images(root, tree, found, colors, label) for root, tree in trees.items()}
    if baseline and others is None:
        others = results[Path(baseline)]
    ours = results[Path(images)]
    print("\n".join(report(found.label, label, ours, others)))
    print(f"\nwrote {Path(images) / RESULTS}")


def label_of(folder: str) -> str:
    """What results say of a network: the name of its folder, and the start of the hash of its content."""
    if folder == RANDOM:
        return RANDOM_LABEL
    return f"{Path(folder).resolve().name} {content_hash(folder)[:8]}".strip() if folder else ""


def check_tree(root: Path, tree: list[PromptImages], clip: str) -> None:
    """Raise ValueError for images of prompts without a task, and of prompts with colors without a CLIP."""
    for each in tree:
        if not each.metadata["tag"]:
            raise ValueError(
                f"images: prompt {each.number} of '{root}' has no tag of GenEval; make images of GenEval's prompts"
            )
    colored = sum(bool(colored_classes(each.metadata)) for each in tree)
    if colored and not clip:
        raise ValueError(
            f"--clip: missing, but {colored} prompts of '{root}' ask for colors; pass --clip=FOLDER with "
            "clip-vit-large-patch14, or --clip=random to try the command out"
        )


def load_colors(clip: str) -> Colors | None:
    """Return the classifier of colors by the CLIP of a folder; None without one."""
    if not clip:
        return None
    # The detector needs memory of the same device.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from experiments.geneval.clip import load_clip

    return color_classifier(*load_clip(clip))


def report(detector: str, clip: str, results: list[dict], others: list[dict] | None) -> list[str]:
    """Return the lines of the scores of results, and of their difference from others."""
    if RANDOM_LABEL in (detector, clip):
        print("geneval: random weights find objects and colors at random; these scores mean nothing", file=sys.stderr)
    lines = [f"detector: {detector}", *([f"colors: {clip}"] if clip else [])]
    lines += ["", *score_lines(summarize(results))]
    if others is not None:
        foreign = {result.get("detector", "unknown") for result in others} - {detector}
        if foreign:
            lines += ["", f"The baseline was scored by another detector: {', '.join(sorted(foreign))}."]
        lines += ["", *comparison_lines(compare(results, others), summarize(others))]
    return lines


def score_lines(summary: Summary) -> list[str]:
    """Return a table of scores in percent, with intervals and numbers of images."""
    rows = []
    for task, interval in summary.intervals.items():
        score = summary.scores.tasks.get(task, summary.scores.overall)
        count = summary.counts.get(task, sum(summary.counts.values()))
        rows.append((task, percent(score), f"[{percent(interval.low)}, {percent(interval.high)}]", count))
    absent = f"without {', '.join(summary.scores.absent)}, which have no images" if summary.scores.absent else ""
    lines = tabulate(rows, ("task", "score %", "95 % interval", "images"), disable_numparse=True).split("\n")
    lines += [f"The overall score is the mean of the tasks {absent}".rstrip() + "."]
    prompts = f"Of all prompts {percent(summary.prompts)} % have a correct image"
    return [*lines, f"Of all images {percent(summary.images)} % are correct. {prompts}."]


def comparison_lines(comparison: Comparison, baseline: Summary) -> list[str]:
    """Return a table of differences to a baseline in percentage points, with intervals."""
    rows = []
    for task, interval in comparison.intervals.items():
        score = baseline.scores.tasks.get(task, baseline.scores.overall)
        bounds = f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
        rows.append((task, percent(score), f"{100 * interval.mean:+.1f}", bounds))
    header = ("task", "baseline %", "difference", "95 % interval")
    lines = tabulate(rows, header, disable_numparse=True).split("\n")
    left_out = f"; {comparison.left_out} prompts of one alone are left out" if comparison.left_out else ""
    return [*lines, f"Differences are over {comparison.prompts} prompts, resampled in pairs{left_out}."]


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.1f}"
