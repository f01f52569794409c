"""GenEval's rules (Ghosh et al., arXiv 2310.11513) on the detections of any detector.

The metadata of a prompt is GenEval's JSON: {"tag", "include": [{"class", "count", "color"?, "position"?}], "exclude"?,
"prompt"}. A position is [relation, index of the reference in "include"].
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
OPPOSITES = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

Metadata = Mapping[str, Any]
Box = tuple[float, float, float, float]


class Detection(NamedTuple):
    """An object of an image, with its box (left, top, right, bottom), where y points down and ends are exclusive."""

    name: str
    score: float
    box: Box
    color: str | None = None


def relations(a_box: Box, b_box: Box, shrink: float = 0.1) -> set[str]:
    """Relations of A to B: none, one or two of "left of", "right of", "above", "below".

    With centers c, sizes d and o = c_A - c_B, each axis becomes o' = sign(o) max(|o| - shrink (d_A + d_B), 0), and a
    relation holds where o' / |o| exceeds 1/2 in its direction. The norm is that of the offset in both axes.
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


def best_detections(detections: Iterable[Detection], threshold: float, limit: int = 16) -> dict[str, list[Detection]]:
    """The `limit` best detections of each class with a score above the threshold, in descending order of scores.

    The later of two equal scores comes first. Overlapping boxes are not suppressed, as in the published code (whose
    limit on the overlap is 1). Scores and threshold are compared in float32, the type of the published detector's.
    """
    ordered = sorted(reversed(list(detections)), key=lambda detection: -detection.score)
    groups: dict[str, list[Detection]] = {}
    for detection in ordered:
        if np.float32(detection.score) > np.float32(threshold):
            groups.setdefault(detection.name, []).append(detection)
    return {name: group[:limit] for name, group in groups.items()}


def best_of(
    metadata: Metadata, detections: Iterable[Detection], threshold: float = 0.3, counting_threshold: float = 0.9
) -> dict[str, list[Detection]]:
    """`best_detections` above the threshold of the prompt's task: that for counting, or that for all others."""
    return best_detections(detections, counting_threshold if metadata["tag"] == "counting" else threshold)


def clauses(
    metadata: Metadata, detections: Iterable[Detection], threshold: float = 0.3, counting_threshold: float = 0.9
) -> list[float]:
    """Clauses of a prompt as numbers in [0, 1], each 1 where it is fulfilled.

    For each class: the detected share of its count; with a color, the share of the count that has it among the `count`
    best detections, on which alone colors and positions are tested; with a position, the share of pairs (object,
    reference) for which the relation holds, 0 unless both are detected in full. For each exclusion: 0 from `count`
    detections on. Objects that the prompt does not name are ignored. Counting prompts use `counting_threshold`.
    """
    groups = best_of(metadata, detections, threshold, counting_threshold)
    include = metadata.get("include", [])
    detected = [groups.get(each["class"], [])[: each["count"]] for each in include]
    results = []
    for each, group in zip(include, detected, strict=True):
        results.append(len(group) / each["count"])
        if "color" in each:
            results.append(sum(detection.color == each["color"] for detection in group) / each["count"])
        if "position" in each:
            relation, reference = each["position"]
            pairs = [(a.box, b.box) for a in group for b in detected[reference]]
            complete = len(group) == each["count"] and len(detected[reference]) == include[reference]["count"]
            holding = sum(relation in relations(*pair) for pair in pairs)
            results.append(holding / len(pairs) if complete else 0.0)
    for each in metadata.get("exclude", []):
        results.append(float(len(groups.get(each["class"], [])) < each["count"]))
    return results


def correct(
    metadata: Metadata, detections: Iterable[Detection], threshold: float = 0.3, counting_threshold: float = 0.9
) -> bool:
    """Whether an image fulfills its prompt by GenEval's verdict: every clause is fulfilled.

    GenEval tests a position only if the object and its reference have passed all earlier tests; otherwise the image is
    wrong in either case. The default thresholds are those of its Mask2Former detector.
    """
    return all(clause == 1 for clause in clauses(metadata, detections, threshold, counting_threshold))


def reward(
    metadata: Metadata, detections: Iterable[Detection], threshold: float = 0.3, counting_threshold: float = 0.9
) -> float:
    """Mean of the clauses, in [0, 1]; 1 if and only if `correct` is true."""
    return float(np.mean(clauses(metadata, detections, threshold, counting_threshold)))


class Verdict(NamedTuple):
    """Whether an image is correct, and one line for each requirement that it misses."""

    correct: bool
    reason: str


def verdict(
    metadata: Metadata, detections: Iterable[Detection], threshold: float = 0.3, counting_threshold: float = 0.9
) -> Verdict:
    """The verdict of `correct` with its reasons in the words of the published code.

    An object that misses its count, color or position is no target for others.
    """
    groups = best_of(metadata, detections, threshold, counting_threshold)
    include = metadata.get("include", [])
    detected = [groups.get(each["class"], [])[: each["count"]] for each in include]
    # The objects that are there in full, from which those are removed that miss a later test.
    targets = {index: group for index, group in enumerate(detected) if len(group) == include[index]["count"]}
    reasons = []
    for index, (each, group) in enumerate(zip(include, detected, strict=True)):
        reason = missed(each, group, targets)
        if reason:
            targets.pop(index, None)
            reasons.append(reason)
    for each in metadata.get("exclude", []):
        found = len(groups.get(each["class"], []))
        if found >= each["count"]:
            reasons.append(f"expected {each['class']}<{each['count']}, found {found}")
    return Verdict(not reasons, "\n".join(reasons))


def missed(wanted: Mapping[str, Any], group: list[Detection], targets: Mapping[int, list[Detection]]) -> str:
    """The first requirement of an entry of "include" that its best detections miss; empty if there is none."""
    name, count = wanted["class"], wanted["count"]
    if len(group) < count:
        return f"expected {name}>={count}, found {len(group)}"
    if "color" in wanted:
        found = Counter(detection.color for detection in group if detection.color)
        if found[wanted["color"]] < count:
            order = [color for color in COLORS if color in found] + sorted(found.keys() - set(COLORS))
            listed = ", ".join(f"{found[color]} {color}" for color in order)
            right = f"{found[wanted['color']]} {wanted['color']}"
            return f"expected {wanted['color']} {name}>={count}, found {right}; and {listed}"
    if "position" in wanted:
        relation, reference = wanted["position"]
        if reference not in targets:
            return f"no target for {name} to be {relation}"
        for a, b in product(group, targets[reference]):
            holding = relations(a.box, b.box)
            if relation not in holding:
                names = " and ".join(each for each in OPPOSITES if each in holding) or "no relation to"
                return f"expected {name} {relation} target, found {names} target"
    return ""


class Scores(NamedTuple):
    """Shares of correct images; `absent` names the tasks without images, which the overall mean omits."""

    tasks: dict[str, float]
    overall: float
    absent: tuple[str, ...]


def scores(tags: Sequence[str], correct: Sequence[bool]) -> Scores:
    """Mean verdict of each task over its images, and the unweighted mean over tasks.

    Raises:
      ValueError: without images, for an unknown tag, or when verdicts and tags differ in number.
    """
    if not len(tags) or len(tags) != len(correct):
        raise ValueError(f"correct: {len(correct)} verdicts for {len(tags)} tags; pass one per image, and at least one")
    unknown = sorted(set(tags) - set(TASKS))
    if unknown:
        raise ValueError(f"metadata.tag: unknown {unknown[0]!r}; use one of {', '.join(TASKS)}")
    verdicts = np.asarray(correct, np.float64)
    tag_array = np.asarray(tags)
    means = {task: float(verdicts[tag_array == task].mean()) for task in TASKS if task in tags}
    return Scores(means, float(np.mean(list(means.values()))), tuple(task for task in TASKS if task not in means))
