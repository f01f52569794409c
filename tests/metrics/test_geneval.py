"""GenEval's rules on known detections, and against a step-by-step implementation of the published code."""

import numpy as np
import pytest

from diffusion.metrics.geneval import (
    TASKS,
    Detection,
    best_detections,
    clauses,
    correct,
    relations,
    reward,
    scores,
    verdict,
)
from tests.checks import refused

AT = {"west": (0, 10, 10, 20), "east": (40, 10, 50, 20), "north": (20, 0, 30, 10), "south": (20, 40, 30, 50)}


def seen(name, place="west", score=0.95, color="red"):
    """A detection of a class at a named place or in a box."""
    return Detection(name, score, AT.get(place, place), color)


def asks(tag, *include, exclude=None):
    """Metadata; every entry of `include` is (class, count, further fields)."""
    entries = [{"class": name, "count": count, **more} for name, count, more in include]
    return {"tag": tag, "include": entries} | ({"exclude": exclude} if exclude else {}) | {"prompt": ""}


DOG = asks("single_object", ("dog", 1, {}))
PAIR = asks("two_object", ("dog", 1, {}), ("cat", 1, {}))
TWO_DOGS = asks("counting", ("dog", 2, {}), exclude=[{"class": "dog", "count": 3}])
RED_DOG = asks("colors", ("dog", 1, {"color": "red"}))
CAT_LEFT = asks("position", ("dog", 1, {}), ("cat", 1, {"position": ["left of", 0]}))
TWO_DOGS_CAT_LEFT = asks("position", ("dog", 2, {}), ("cat", 1, {"position": ["left of", 0]}))
CAT_ABOVE = asks("position", ("dog", 1, {}), ("cat", 1, {"position": ["above", 0]}))
BOTH_COLORS = asks("color_attr", ("dog", 1, {"color": "red"}), ("cat", 1, {"color": "blue"}))
DOGS = [seen("dog", "west"), seen("dog", "east")]

DIAGONAL = [seen("cat", (0, 0, 10, 10)), seen("dog", (40, 40, 50, 50))]

CASES = {
    "one too many does not matter without an exclusion": (DOG, DOGS, True, 1),
    "nothing": (DOG, [], False, 0),
    "at the threshold is below it": (DOG, [seen("dog", score=0.3)], False, 0),
    "one of two": (PAIR, [seen("dog")], False, 1 / 2),
    "two of two, and a bystander": (PAIR, [seen("dog"), seen("cat", "east"), seen("bird", "north")], True, 1),
    "two counted": (TWO_DOGS, DOGS, True, 1),
    "one of two counted": (TWO_DOGS, DOGS[:1], False, 3 / 4),
    "count + 1 at .89 is not there": (TWO_DOGS, [*DOGS, seen("dog", "north", 0.89)], True, 1),
    "count + 1 at .91 is": (TWO_DOGS, [*DOGS, seen("dog", "north", 0.91)], False, 1 / 2),
    "a count at .89 is not enough": (TWO_DOGS, [DOGS[0], seen("dog", "east", 0.89)], False, 3 / 4),
    "the color of the best alone": (RED_DOG, [seen("dog", score=0.8), seen("dog", "east", 0.9, "blue")], False, 1 / 2),
    "of equals the later one": (RED_DOG, [seen("dog"), seen("dog", "east", color="blue")], False, 1 / 2),
    "of equals the later one has it": (RED_DOG, [seen("dog", color="blue"), seen("dog", "east")], True, 1),
    "left": (CAT_LEFT, [seen("cat", "west"), seen("dog", "east")], True, 1),
    "left and right swapped": (CAT_LEFT, [seen("cat", "east"), seen("dog", "west")], False, 2 / 3),
    "no reference": (CAT_LEFT, [seen("cat", "west")], False, 1 / 3),
    "no object": (CAT_LEFT, [seen("dog", "east")], False, 1 / 3),
    "one of two references": (TWO_DOGS_CAT_LEFT, [seen("cat", "west"), seen("dog", "east")], False, 1 / 2),
    "the best cat is on the wrong side": (
        CAT_LEFT,
        [seen("cat", "west", 0.8), seen("cat", "east", 0.9), seen("dog", (20, 10, 30, 20))],
        False,
        2 / 3,
    ),
    "a diagonal, one relation": (CAT_LEFT, DIAGONAL, True, 1),
    "a diagonal, the other relation": (CAT_ABOVE, DIAGONAL, True, 1),
    "on top of each other": (CAT_LEFT, [seen("cat", (0, 0, 10, 10)), seen("dog", (2, 0, 12, 10))], False, 2 / 3),
    "colors swapped": (BOTH_COLORS, [seen("dog", color="blue"), seen("cat", "east")], False, 1 / 2),
}


@pytest.mark.parametrize("name", CASES)
def test_known_detections(name):
    metadata, detections, answer, share = CASES[name]
    assert correct(metadata, detections) is answer
    assert reward(metadata, detections) == pytest.approx(share)
    assert verdict(metadata, detections).correct is answer and bool(verdict(metadata, detections).reason) is not answer


@pytest.mark.parametrize(
    ("metadata", "detections", "reason"),
    [
        (DOG, DOGS, ""),
        (TWO_DOGS, DOGS[:1], "expected dog>=2, found 1"),
        (TWO_DOGS, [*DOGS, seen("dog", "north", 0.91)], "expected dog<3, found 3"),
        (PAIR, [], "expected dog>=1, found 0\nexpected cat>=1, found 0"),
        (RED_DOG, [seen("dog", color="blue")], "expected red dog>=1, found 0 red; and 1 blue"),
        (
            asks("colors", ("dog", 3, {"color": "red"})),
            [seen("dog", color=color) for color in ("white", "red", "orange")],
            "expected red dog>=3, found 1 red; and 1 red, 1 orange, 1 white",
        ),
        (CAT_LEFT, [seen("cat", "east"), seen("dog")], "expected cat left of target, found right of target"),
        (CAT_LEFT, [seen("cat"), seen("dog")], "expected cat left of target, found no relation to target"),
        (
            asks("position", ("dog", 1, {}), ("cat", 1, {"position": ["right of", 0]})),
            DIAGONAL,
            "expected cat right of target, found left of and above target",
        ),
        (CAT_LEFT, [seen("cat", "west")], "expected dog>=1, found 0\nno target for cat to be left of"),
        # A dog of the wrong color is no target either.
        (
            asks("position", ("dog", 1, {"color": "blue"}), ("cat", 1, {"position": ["left of", 0]})),
            [seen("cat", "west"), seen("dog", "east")],
            "expected blue dog>=1, found 0 blue; and 1 red\nno target for cat to be left of",
        ),
    ],
)
def test_known_reasons(metadata, detections, reason):
    found = verdict(metadata, detections)
    assert found.correct == (not reason)
    assert found.reason == reason


def test_scores_and_thresholds_are_compared_in_float32():
    """In float64 the score that float32 has for .3 exceeds .3, and that for .9 is below .9."""
    assert not correct(DOG, [seen("dog", score=float(np.float32(0.3)))])
    assert correct(DOG, [seen("dog", score=float(np.nextafter(np.float32(0.3), np.float32(1))))])
    assert not correct(DOG, [seen("dog", score=0.3 + 1e-9)])
    one = asks("counting", ("dog", 1, {}))
    assert not correct(one, [seen("dog", score=float(np.float32(0.9)))])
    assert correct(one, [seen("dog", score=float(np.nextafter(np.float32(0.9), np.float32(1))))])


def test_known_relations():
    """Boxes 10 wide: o' = |o| - 2 on each axis; at (x, y) = (20, 10) u = (18, 8) / sqrt(500) = (.80, .36)."""
    box = (0, 0, 10, 10)
    assert relations((20, 10, 30, 20), box) == {"right of"} and relations(box, (20, 10, 30, 20)) == {"left of"}
    assert relations((10, 20, 20, 30), box) == {"below"} and relations(box, (10, 20, 20, 30)) == {"above"}
    # (20, 14): u = (18, 12) / 24.41 = (.74, .49); (20, 15): (18, 13) / 25 = (.72, .52).
    assert relations((20, 14, 30, 24), box) == {"right of"}
    assert relations((20, 15, 30, 25), box) == {"right of", "below"}
    # The shrunk offset vanishes up to a fifth of the width, and just beyond is small relative to the offset.
    assert relations((2, -2, 12, 8), box) == relations(box, box) == set()
    assert relations((4, 0, 14, 10), box) == set()  # u = 1 / 2, which does not exceed it
    assert relations((4.1, 0, 14.1, 10), box) == {"right of"}
    assert relations((5, 0, 15, 10), box) == {"right of"}  # u = 3 / 5
    assert relations((5, 0, 15, 10), box, shrink=0.2) == set()  # u = 1 / 5


def by_the_book(metadata, detections, threshold, counting_threshold):
    """GenEval's procedure: classes in order, groups that have matched, then exclusions."""
    least = counting_threshold if metadata["tag"] == "counting" else threshold
    groups = {}
    for name in ("dog", "cat"):
        of_class = [detection for detection in detections if detection.name == name]
        order = np.argsort([detection.score for detection in of_class], kind="stable")[::-1]
        groups[name] = [of_class[index] for index in order if of_class[index].score > least][:16]
    answer, matched = True, []
    for each in metadata["include"]:
        group = groups[each["class"]][: each["count"]]
        good = len(group) == each["count"]
        if good and "color" in each:
            good = all(one.color == each["color"] for one in group)
        if good and "position" in each:
            relation, target = each["position"]
            reference = matched[target]
            good = reference is not None and all(relation in relations(a.box, b.box) for a in group for b in reference)
        answer = answer and good
        matched.append(group if good else None)
    return answer and all(len(groups[each["class"]]) < each["count"] for each in metadata.get("exclude", []))


def test_the_verdict_equals_that_of_the_procedure():
    rng = np.random.default_rng(0)
    fields = [{}, {"color": "red"}, {"position": ["left of", 0]}, {"position": ["below", 0], "color": "blue"}]
    verdicts = []
    for _ in range(1500):
        first = ("dog", int(rng.integers(1, 4)), fields[rng.integers(2)])
        include = [first, ("cat", int(rng.integers(1, 3)), fields[rng.integers(4)])][: rng.integers(1, 3)]
        exclude = [{"class": "dog", "count": first[1] + 1}] if rng.random() < 0.5 else None
        metadata = asks(TASKS[rng.integers(6)], *include, exclude=exclude)
        detections = []
        for _ in range(rng.integers(0, 6)):
            left, top = rng.integers(0, 30, 2).tolist()
            box = (left, top, left + int(rng.integers(5, 15)), top + int(rng.integers(5, 15)))
            # Few distinct scores, so that many are equal or at a threshold.
            score, color = rng.choice([0.2, 0.3, 0.5, 0.9, 0.95]), ("red", "red", "blue")[rng.integers(3)]
            detections.append(Detection(("dog", "cat")[rng.integers(2)], float(score), box, color))
        thresholds = (0.3, 0.9) if rng.random() < 0.5 else (0.25, 0.4)
        verdicts.append(by_the_book(metadata, detections, *thresholds))
        assert correct(metadata, detections, *thresholds) == verdicts[-1]
        assert (reward(metadata, detections, *thresholds) == 1) == verdicts[-1]
        found = verdict(metadata, detections, *thresholds)
        assert found.correct == verdicts[-1] == (not found.reason)
        assert all(0 <= clause <= 1 for clause in clauses(metadata, detections, *thresholds))
    assert 0.05 < np.mean(verdicts) < 0.5


def test_at_most_sixteen_detections_of_a_class_count():
    """A prompt cannot exclude a seventeenth."""
    many = [seen("dog", score=0.91 + 0.001 * index) for index in range(20)]
    best = best_detections([*many, seen("cat")], 0.9)
    assert [round(1000 * each.score) for each in best["dog"]] == list(range(929, 913, -1))
    assert best["cat"] == [seen("cat")]
    assert correct(asks("counting", ("dog", 16, {}), exclude=[{"class": "dog", "count": 17}]), many)


def test_overall_is_the_mean_of_tasks_and_names_those_without_images():
    summary = scores(["colors", "colors", "colors", "colors", "position"], [True, False, False, False, True])
    assert summary.tasks == {"colors": 0.25, "position": 1.0} and summary.overall == 0.625
    assert summary.absent == ("single_object", "two_object", "counting", "color_attr")
    assert scores(TASKS, [True] * 3 + [False] * 3)[1:] == (0.5, ())


def test_scores_need_a_known_tag_for_each_verdict():
    with refused("correct: 2 verdicts for 1 tags"):
        scores(["colors"], [True, False])
    with refused(r"metadata\.tag: unknown 'shapes'; use one of single_object, .*color_attr"):
        scores(["shapes"], [True])
