"""GenEval on saved images: colors of objects, results that go on, scores with intervals, and the command."""

import json
import re

import numpy as np
import pytest

from diffusion.data.geneval import image_folder, read_image, read_tree, sample_file, write_image, write_metadata
from diffusion.metrics.geneval import Detection
from experiments import contents
from experiments.geneval import command
from experiments.geneval.detector import RANDOM_LABEL, Detector
from experiments.geneval.score import RESULTS, judge, score_images
from experiments.geneval.segments import Segment
from experiments.geneval.summary import compare, read_results, summarize
from tests.checks import refused
from tests.experiments.conftest import one_line


def segment(name, box, score=0.95, color=None, side=20):
    mask = np.zeros((side, side), bool)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = True
    return Segment(Detection(name, score, tuple(map(float, box)), color), mask)


# Verdicts, results and scores.


def asks(tag, prompt, *include, exclude=None):
    entries = [{"class": name, "count": count, **more} for name, count, more in include]
    return {"tag": tag, "include": entries, "prompt": prompt} | ({"exclude": exclude} if exclude else {})


def one_color(color):
    return lambda image, objects, name: [color] * len(objects)


def test_only_the_best_objects_get_colors():
    asked = []

    def colors(image, objects, name):
        asked.append((name, [each.detection.score for each in objects]))
        return ["red"] * len(objects)

    red = asks("colors", "a photo of a red dog", ("dog", 1, {"color": "red"}))
    objects = [segment("dog", (0, 0, 4, 4), 0.5), segment("dog", (5, 5, 9, 9), 0.9), segment("cat", (0, 0, 3, 3), 0.8)]
    objects += [segment("cow", (0, 0, 3, 3), 0.3)]
    image = np.zeros((20, 20, 3), np.uint8)
    found = judge(red, image, objects, colors)
    assert found["correct"] is True and found["reason"] == "" and asked == [("dog", [0.9])]
    assert json.loads(found["metadata"]) == red
    dogs = [[5, 5, 9, 9, 0.9], [0, 0, 4, 4, 0.5]]
    assert json.loads(found["details"]) == {"dog": dogs, "cat": [[0, 0, 3, 3, 0.8]]}
    wrong = judge(red, image, objects, one_color("blue"))
    assert wrong["correct"] is False and wrong["reason"] == "expected red dog>=1, found 0 red; and 1 blue"
    assert judge(red, image, objects[2:], None)["reason"] == "expected dog>=1, found 0"
    with refused("--clip: missing"):
        judge(red, image, objects, None)


def test_of_equal_scores_the_later_object_is_judged():
    """As in the published code, and in `correct`; its color, too, is that of the later one."""
    red = asks("colors", "", ("dog", 1, {"color": "red"}))
    objects = [segment("dog", (0, 0, 4, 4)), segment("dog", (5, 5, 9, 9))]

    def colors(image, chosen, name):
        return ["red" if each.detection.box[0] == 5 else "blue" for each in chosen]

    assert judge(red, np.zeros((20, 20, 3), np.uint8), objects, colors)["correct"]


PROMPTS = [
    asks("single_object", "a photo of a dog", ("dog", 1, {})),
    asks("single_object", "a photo of a cat", ("cat", 1, {})),
    asks("counting", "a photo of two dogs", ("dog", 2, {}), exclude=[{"class": "dog", "count": 3}]),
    asks("colors", "a photo of a red dog", ("dog", 1, {"color": "red"})),
]


def make_tree(root, values, prompts=PROMPTS):
    """Images of which every pixel is the number of dogs that `fake_detector` finds."""
    for number, (metadata, row) in enumerate(zip(prompts, values, strict=True)):
        write_metadata(image_folder(root, number), metadata)
        for index, value in enumerate(row):
            write_image(sample_file(image_folder(root, number), index), np.full((20, 20, 3), value, np.uint8))
    return root


def fake_detector(calls, label="fake", stop_at=None):
    def find(image):
        calls.append(int(image[0, 0, 0]))
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return [segment("dog", (5 * index, 0, 5 * index + 4, 4)) for index in range(calls[-1])]

    return Detector(label, find)


VALUES = [[1, 0], [1, 1], [2, 3], [1, 1]]
CORRECT = [True, False, False, False, True, False, True, True]


@pytest.fixture
def images(tmp_path):
    return make_tree(tmp_path / "images", VALUES)


def score(root, detector, clip="fake CLIP", color="red"):
    return score_images(root, read_tree(root), detector, one_color(color), clip)


def test_results_have_the_fields_of_the_published_scripts(images):
    results = score(images, fake_detector([]))
    assert [result["correct"] for result in results] == CORRECT
    assert results == read_results(images / RESULTS)
    assert list(results[1])[:5] == ["filename", "tag", "prompt", "correct", "reason"]
    assert results[1]["filename"] == "00000/samples/0001.png" and results[1]["reason"] == "expected dog>=1, found 0"
    assert results[5]["reason"] == "expected dog<3, found 3" and results[5]["tag"] == "counting"
    assert json.loads(results[0]["metadata"]) == PROMPTS[0]
    assert json.loads(results[0]["details"]) == {"dog": [[0, 0, 4, 4, 0.95]]}
    assert [result["clip"] for result in results] == [""] * 6 + ["fake CLIP"] * 2
    assert {result["detector"] for result in results} == {"fake"}


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_an_interrupted_run_goes_on(images, cut):
    """Also if the last line was written in part, or without its end."""
    whole = score(images, fake_detector([]))
    (images / RESULTS).unlink()
    with pytest.raises(KeyboardInterrupt):
        score(images, fake_detector([], stop_at=5))
    file, calls = images / RESULTS, []
    text = file.read_text()
    assert text.count("\n") == 4
    file.write_text(text[: len(text) - cut])
    assert score(images, fake_detector(calls)) == whole
    assert len(calls) == (5 if cut == 40 else 4)
    assert sorted(map(str, read_results(file))) == sorted(map(str, whole))
    assert score(images, fake_detector(calls, stop_at=len(calls) + 1)) == whole


def test_changed_images_and_prompts_are_scored_again(images):
    score(images, fake_detector([]))
    calls = []
    write_image(sample_file(image_folder(images, 1), 0), np.full((20, 20, 3), 7, np.uint8))
    write_metadata(image_folder(images, 0), PROMPTS[1])
    sample_file(image_folder(images, 3), 1).unlink()
    results = score(images, fake_detector(calls))
    assert calls == [1, 0, 7] and len(results) == len(read_results(images / RESULTS)) == 7
    assert results[0]["prompt"] == "a photo of a cat" and results[0]["correct"] is False


def test_results_of_another_detector_or_clip_are_not_mixed(images):
    score(images, fake_detector([]))
    text = (images / RESULTS).read_text()
    with refused("--detector: '.*results.jsonl' has results of 'fake', not of 'other'; move"):
        score(images, fake_detector([], "other"))
    with refused("--clip: '.*results.jsonl' has results of 'fake CLIP', not of 'none'; move"):
        score(images, fake_detector([]), clip="")
    assert (images / RESULTS).read_text() == text
    (images / RESULTS).write_text("{}\n" + text)
    for read in (lambda: score(images, fake_detector([])), lambda: read_results(images / RESULTS)):
        with refused("results: line 1 of '.*' is not a result of GenEval; delete the file"):
            read()


def test_damaged_images_are_refused_before_any_is_scored(images):
    file, calls = sample_file(image_folder(images, 3), 1), []
    file.write_bytes(file.read_bytes()[:-20])
    with refused("images: '.*0001.png' is not a whole PNG"):
        score(images, fake_detector(calls))
    assert not calls and not (images / RESULTS).exists()
    assert (read_image(sample_file(image_folder(images, 3), 0)) == 1).all()


def results_of(values):
    """Results of (tag, prompt, verdicts)."""
    return [
        {"tag": tag, "prompt": prompt, "correct": verdict} for tag, prompt, verdicts in values for verdict in verdicts
    ]


def test_known_scores_and_intervals():
    results = results_of(
        [
            ("colors", "a", [True, True]),
            ("colors", "b", [False, False]),
            ("counting", "c", [True, False]),
            ("counting", "d", [True, False]),
        ]
    )
    found = summarize(results)
    assert found.scores.tasks == {"colors": 0.5, "counting": 0.5} and found.scores.overall == 0.5
    assert (found.images, found.prompts) == (0.5, 0.75) and found.counts == {"counting": 4, "colors": 4}
    # Both prompts of counting are equal; two of colors are drawn, so that its score is 0, 1/2 or 1.
    assert (found.intervals["counting"].low, found.intervals["counting"].high) == (0.5, 0.5)
    assert (found.intervals["colors"].low, found.intervals["colors"].high) == (0, 1)
    assert (found.intervals["overall"].low, found.intervals["overall"].high) == (0.25, 0.75)
    assert list(found.intervals) == ["counting", "colors", "overall"]


def test_differences_are_paired_by_prompt():
    """Each prompt of ours is better by 1/2, so that the interval of the difference is a point, unlike the scores'."""
    ours = results_of([("colors", "a", [True, True]), ("colors", "b", [True, False]), ("colors", "c", [True])])
    others = results_of([("colors", "b", [False]), ("colors", "a", [False, True]), ("counting", "d", [True])])
    found = compare(ours, others)
    assert found.intervals["colors"][:4] == (0.5, 0, 0.5, 0.5) == found.intervals["overall"][:4]
    assert (found.prompts, found.left_out) == (2, 2) and "counting" not in found.intervals
    assert compare(others, ours).intervals["overall"].mean == -0.5
    with refused("--baseline: has no prompt in common"):
        compare(ours, results_of([("counting", "a", [True])]))


# The command line.


@pytest.fixture
def fake(monkeypatch):
    """Replace the networks; the calls of the detector are collected."""
    calls = []
    monkeypatch.setattr(command, "load_detector", lambda folder: fake_detector(calls, folder))
    monkeypatch.setattr(command, "load_colors", lambda folder: one_color("red") if folder else None)
    return calls


def test_a_folder_is_scored_and_compared(succeed, fake, images, tmp_path):
    words = ("geneval", "--detector=fake", "--clip=fake")
    out, _ = succeed(*words, f"--images={images}")
    lines = [line.split() for line in out.splitlines()]
    assert ["single_object", "25.0", "[0.0,", "50.0]", "4"] in lines
    assert ["colors", "100.0", "[100.0,", "100.0]", "2"] in lines
    assert "without two_object, position, color_attr, which have no images" in out
    assert "Of all images 50.0 % are correct. Of all prompts 75.0 % have a correct image." in out
    assert len(fake) == 8 and len(read_results(images / RESULTS)) == 8
    base = make_tree(tmp_path / "base", [[0, 0], [1, 1], [2, 3], [0, 0]])
    compared, _ = succeed(*words, f"--images={images}", f"--baseline={base}")
    assert len(fake) == 16 and compared.startswith(out.split("\nwrote")[0].rstrip())
    lines = [line.split() for line in compared.splitlines()]
    assert ["colors", "0.0", "+100.0", "[+100.0,", "+100.0]"] in lines
    assert ["single_object", "0.0", "+25.0", "[+0.0,", "+50.0]"] in lines
    by_file, _ = succeed(*words, f"--images={images}", f"--baseline={base / RESULTS}")
    assert by_file == compared and len(fake) == 16


def test_a_baseline_of_published_scripts_is_read(succeed, fake, images, tmp_path):
    succeed("geneval", "--detector=fake", "--clip=fake", f"--images={images}")
    kept = ("filename", "tag", "prompt", "correct", "reason", "metadata", "details")
    rows = [{name: result[name] for name in kept} for result in read_results(images / RESULTS)]
    file = tmp_path / "theirs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    out, _ = succeed("geneval", "--detector=fake", "--clip=fake", f"--images={images}", f"--baseline={file}")
    assert "The baseline was scored by another detector: unknown." in out and "+0.0" in out


def test_wrong_words_are_one_line(cli, fake, images, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(each) + "\n" for each in [*PROMPTS, PROMPTS[0]]))
    good = (f"--images={images}", "--detector=fake", "--clip=fake")
    one_line(cli("geneval"), "--images: missing; pass --images=FOLDER")
    one_line(cli("geneval", good[0]), "--detector: missing; pass --detector=FOLDER", "random")
    one_line(cli("geneval", *good[:2]), "--clip: missing, but 1 prompts of", "ask for colors", "--clip=random")
    one_line(cli("geneval", *good, f"--prompts={prompts}"), "has no folder 00004 of prompt 4")
    one_line(cli("geneval", *good, f"--baseline={tmp_path / 'no'}"), "results: ", "pass a folder of images or its")
    one_line(cli("geneval", f"--images={tmp_path / 'no'}", *good[1:]), "is not a folder")
    write_metadata(image_folder(images, 0), {"tag": "", "prompt": "a dog"})
    one_line(cli("geneval", *good), "images: prompt 0 of", "has no tag of GenEval")
    assert not fake


@pytest.mark.parametrize("field", ["detector", "clip"])
def test_results_of_other_weights_under_the_same_name_are_not_mixed(field, cli, succeed, fake, images, tmp_path):
    folder = tmp_path / "network"
    folder.mkdir()
    words = ("geneval", f"--images={images}", "--detector=fake", "--clip=fake", f"--{field}={folder}")
    labels = []
    for number in range(2):
        (folder / "model.safetensors").write_bytes(bytes([number]))
        contents.reread()
        labels.append(command.label_of(str(folder)))
        if not number:
            succeed(*words)
    assert labels[0] != labels[1] and all(re.fullmatch("network [0-9a-f]{8}", label) for label in labels)
    one_line(cli(*words), f"--{field}: ", f"has results of '{labels[0]}', not of '{labels[1]}'; move the file away")


def test_random_weights_are_named(cli, monkeypatch, images):
    monkeypatch.setattr(command, "load_detector", lambda folder: fake_detector([], RANDOM_LABEL))
    monkeypatch.setattr(command, "load_colors", lambda folder: one_color("red"))
    status, out, err = cli("geneval", f"--images={images}", "--detector=random", "--clip=random")
    assert status == 0 and out.startswith(f"detector: {RANDOM_LABEL}\ncolors: {RANDOM_LABEL}\n")
    assert "these scores mean nothing" in err
    assert {result["detector"] for result in read_results(images / RESULTS)} == {RANDOM_LABEL}
