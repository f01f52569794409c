"""GenEval's rules (Ghosh et al., arXiv 2310.11513) on detections, whoever detects.

A prompt's metadata is GenEval's JSON: {"tag", "include": [{"class", "count", "color"?, "position"?}], "exclude"?,
"prompt"}. A position is [relation, index of the reference in "include"].
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
OPPOSITES = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

Metadata = Mapping[str, Any]
Box = tuple[float, float, float, float]


class Detection(NamedTuple):
    """One object of an image. Box: left, top, right, bottom, y downwards; right and bottom are last index + 1."""

    name: str
    score: float
    box: Box
    color: str | None = None


def relations(a_box: Box, b_box: Box, shrink: float = 0.1) -> set[str]:
    """Where A lies as seen from B: none, one or two of "left of", "right of", "above", "below".

    With centers c, sizes d and o = c_A - c_B, each axis keeps o' = sign(o) max(|o| - shrink (d_A + d_B), 0), and a
    relation holds where o' / |o| exceeds 1/2 in its direction. The norm is that of the whole offset.
    """
    a, b = (np.asarray(box, np.float64).reshape(2, 2) for box in (a_box, b_box))
    offset = a.mean(axis=0) - b.mean(axis=0)
    sizes = np.abs(a[1] - a[0]) + np.abs(b[1] - b[0])
    shrunk = np.sign(offset) * np.maximum(np.abs(offset) - shrink * sizes, 0)
    if np.all(np.abs(shrunk) < 1e-3):
        return set()
    x, y = shrunk / np.linalg.norm(offset)
    holds = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {relation for relation, true in holds.items() if true}


def kept(detections: Iterable[Detection], threshold: float, limit: int = 16) -> dict[str, list[Detection]]:
    """Per class the `limit` best detections with a score above the threshold, best first.

    Of equal scores the later detection comes first. Boxes that overlap all stay: GenEval's suppression is off as
    published (its limit on the overlap is 1).
    """
    ordered = sorted(reversed(list(detections)), key=lambda detection: -detection.score)
    groups: dict[str, list[Detection]] = {}
    for detection in ordered:
        if detection.score > threshold:
            groups.setdefault(detection.name, []).append(detection)
    return {name: group[:limit] for name, group in groups.items()}


def clauses(
    metadata: Metadata, detections: Iterable[Detection], threshold: float = 0.3, counting_threshold: float = 0.9
) -> list[float]:
    """What a prompt asks for, one number in [0, 1] each, 1 where it is fulfilled.

    For every class: the found share of its count; with a color, the share of the count that has it among the `count`
    best detections, on which alone colors and positions are tested; with a position, the share of pairs (found,
    reference) for which the relation holds, 0 unless both are found in full. For every exclusion: 0 from `count`
    detections on. Objects that nobody asked for do not matter. Counting prompts have a threshold of their own.
    """
    groups = kept(detections, counting_threshold if metadata["tag"] == "counting" else threshold)
    asked = metadata.get("include", [])
    found = [groups.get(each["class"], [])[: each["count"]] for each in asked]
    results = []
    for each, group in zip(asked, found, strict=True):
        results.append(len(group) / each["count"])
        if "color" in each:
            results.append(sum(detection.color == each["color"] for detection in group) / each["count"])
        if "position" in each:
            relation, reference = each["position"]
            pairs = [(a.box, b.box) for a in group for b in found[reference]]
            complete = len(group) == each["count"] and len(found[reference]) == asked[reference]["count"]
            held = sum(relation in relations(*pair) for pair in pairs)
            results.append(held / len(pairs) if complete else 0.0)
    for each in metadata.get("exclude", []):
        results.append(float(len(groups.get(each["class"], [])) < each["count"]))
    return results


def correct(
    metadata: Metadata, detections: Iterable[Detection], threshold: float = 0.3, counting_threshold: float = 0.9
) -> bool:
    """Whether an image shows what its prompt asks for: GenEval's verdict, which is that every clause is fulfilled.

    GenEval tests a position only where the object and its reference have passed so far; an image on which they have
    not is wrong either way. The thresholds are those for its Mask2Former detector.
    """
    return all(clause == 1 for clause in clauses(metadata, detections, threshold, counting_threshold))


def reward(
    metadata: Metadata, detections: Iterable[Detection], threshold: float = 0.3, counting_threshold: float = 0.9
) -> float:
    """The mean of the clauses, in [0, 1]: 1 exactly where `correct` is true."""
    return float(np.mean(clauses(metadata, detections, threshold, counting_threshold)))


class Scores(NamedTuple):
    """Shares of correct images; `absent` names the tasks without a single image, which the overall mean leaves out."""

    tasks: dict[str, float]
    overall: float
    absent: tuple[str, ...]


def scores(tags: Sequence[str], correct: Sequence[bool]) -> Scores:
    """The mean of every task over its images, and overall: the unweighted mean of the tasks.

    Raises:
      ValueError: when there is no image, a tag is no task, or there are not as many verdicts as tags.
    """
    if not len(tags) or len(tags) != len(correct):
        raise ValueError(
            f"correct: {len(correct)} verdicts for {len(tags)} tags; pass one for each image, at least one"
        )
    unknown = sorted(set(tags) - set(TASKS))
    if unknown:
        raise ValueError(f"metadata.tag: {unknown[0]!r} is no task; use one of {', '.join(TASKS)}")
    verdicts = np.asarray(correct, np.float64)
    named = np.asarray(tags)
    means = {task: float(verdicts[named == task].mean()) for task in TASKS if task in tags}
    return Scores(means, float(np.mean(list(means.values()))), tuple(task for task in TASKS if task not in means))
