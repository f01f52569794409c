"""GenEval's prompt files and trees of images: what is read, and one line for what is wrong with it."""

import json
from pathlib import Path

import numpy as np
import pytest

from diffusion.data.geneval import (
    CLASSES,
    COLORS,
    check_image,
    image_folder,
    read_image,
    read_prompts,
    read_texts,
    read_tree,
    sample_file,
    write_image,
    write_metadata,
)
from tests.checks import refused

SHARED = Path(__file__).parents[3] / "shared" / "data" / "geneval"
BENCH = {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}
PAIR = [{"class": "dog", "count": 1}, {"class": "tv remote", "count": 1, "position": ["left of", 0]}]
BESIDE = {"tag": "position", "include": PAIR, "prompt": "a photo of a tv remote left of a dog"}
TWO = {"tag": "counting", "include": [{"class": "cow", "count": 2}], "exclude": [{"class": "cow", "count": 3}]}
TWO["prompt"] = "a photo of two cows"
RED = {"tag": "colors", "include": [{"class": "car", "count": 1, "color": "red"}], "prompt": "a photo of a red car"}
PROMPTS = [BENCH, BESIDE, TWO, RED]


def prompt_file(folder, *lines):
    file = folder / "prompts.jsonl"
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return file


@pytest.fixture
def tree(tmp_path):
    """A tree with two images of each prompt, and the names of the published scripts for the last."""
    for number, metadata in enumerate(PROMPTS):
        folder = image_folder(tmp_path / "images", number)
        write_metadata(folder, metadata)
        for index in range(2):
            file = sample_file(folder, index) if number < 3 else folder / "samples" / f"{index:05d}.png"
            write_image(file, np.full((6, 5, 3), 10 * number + index, np.uint8))
    (tmp_path / "images" / "00003" / "grid.png").write_bytes(b"of all samples")
    (tmp_path / "images" / "results.jsonl").write_text("")
    return tmp_path / "images"


def test_prompts_are_read_as_they_are_written(tmp_path):
    assert read_prompts(prompt_file(tmp_path, *PROMPTS)) == PROMPTS


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"tag": "colors"', r"is not a JSON object; write \{"),
        ("[1]", "is not a JSON object"),
        (BENCH | {"tag": "shapes"}, "unknown tag 'shapes'; use one of single_object, .*color_attr"),
        (BENCH | {"prompt": " "}, "no prompt; add"),
        (BENCH | {"include": []}, "includes nothing"),
        (BENCH | {"include": ["bench"]}, '"include" that is no list of objects'),
        (BENCH | {"include": [{"count": 1}]}, 'an entry of "include" without a name; add "class": NAME'),
        (BENCH | {"include": [{"class": "mouse", "count": 1}]}, "unknown class 'mouse'; use one of the 80"),
        (BENCH | {"include": [{"class": "bench", "count": 0}]}, "no count of 'bench'"),
        (BENCH | {"include": [{"class": "bench", "count": True}]}, "no count of 'bench'"),
        (BENCH | {"exclude": [{"class": "", "count": 1}]}, 'an entry of "exclude" without a name'),
        (BENCH | {"include": [{"class": "bench", "count": 1, "color": "grey"}]}, "unknown color 'grey'; use one of re"),
        (BESIDE | {"include": PAIR[1:]}, 'entry 0 relative to entry 0 of "include"; name an earlier'),
        (BESIDE | {"include": [PAIR[0], PAIR[1] | {"position": ["left of", 2]}]}, "entry 1 relative to entry 2"),
        (BESIDE | {"include": [PAIR[0], PAIR[1] | {"position": ["left of", -1]}]}, "relative to entry -1"),
        (BESIDE | {"include": [PAIR[0], PAIR[1] | {"position": ["near", 0]}]}, r"position \['near', 0\]; use"),
        (BESIDE | {"include": [PAIR[0], PAIR[1] | {"position": [["left of"], 0]}]}, "use .relation, index"),
    ],
)
def test_a_wrong_prompt_is_named_by_file_and_line(tmp_path, line, message):
    with refused(rf"prompts: line 2 of '.*prompts\.jsonl' .*{message}"):
        read_prompts(prompt_file(tmp_path, BENCH, line))


def test_files_without_prompts_are_refused(tmp_path):
    for read in (read_prompts, read_texts):
        with refused("prompts: '.*nowhere' is not a file; pass a file with"):
            read(tmp_path / "nowhere")
        with refused("prompts: '.*' is empty; pass a file with"):
            read(prompt_file(tmp_path, "", " "))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with refused("is not text in UTF-8"):
        read_texts(tmp_path / "bytes")


def test_a_text_file_has_prompts_without_a_task(tmp_path):
    texts = read_texts(prompt_file(tmp_path, "a cat", "", 'ein "Hund", grün '))
    assert texts == [{"tag": "", "prompt": "a cat"}, {"tag": "", "prompt": 'ein "Hund", grün'}]
    write_metadata(image_folder(tmp_path, 0), texts[0])
    write_image(sample_file(image_folder(tmp_path, 0), 0), np.zeros((1, 1, 3), np.uint8))
    (found,) = read_tree(tmp_path, texts[:1])
    assert found.metadata == texts[0]


def test_a_tree_is_read_as_it_is_written(tree):
    for prompts in (None, PROMPTS):
        found = read_tree(tree, prompts)
        assert [(each.number, each.metadata, len(each.files)) for each in found] == [
            (number, metadata, 2) for number, metadata in enumerate(PROMPTS)
        ]
    assert [file.name for file in found[0].files] == ["0000.png", "0001.png"]
    assert [file.name for file in found[3].files] == ["00000.png", "00001.png"]
    image = read_image(found[3].files[1])
    assert image.shape == (6, 5, 3) and image.dtype == np.uint8 and (image == 31).all()
    assert (tree / "00000" / "metadata.jsonl").read_text() == json.dumps(BENCH) + "\n"
    assert not list(tree.rglob("*.partial"))


def test_images_are_in_the_order_of_their_numbers(tree):
    for name in ("10.png", "9.png"):
        (tree / "00000" / "samples" / name).write_bytes((tree / "00000" / "samples" / "0000.png").read_bytes())
    assert [file.name for file in read_tree(tree)[0].files] == ["0000.png", "0001.png", "9.png", "10.png"]


def test_wrong_trees_are_refused(tree):
    with refused("images: '.*nowhere' is not a folder; pass"):
        read_tree(tree / "nowhere")
    with refused("images: '.*samples' has no folder of a prompt; pass"):
        read_tree(tree / "00000" / "samples")
    with refused(r"images: '.*images' has no folder 00004 of prompt 4; make its images"):
        read_tree(tree, [*PROMPTS, BENCH])
    with refused(r"images: '.*00003' has no prompt, there are 3; move it away"):
        read_tree(tree, PROMPTS[:3])
    with refused(r"images: '.*00000' was made for the prompt 'a photo of a bench', but prompt 0 is 'a photo of a tv"):
        read_tree(tree, [BESIDE, BENCH, TWO, RED])
    (tree / "0").mkdir()
    write_metadata(tree / "0", BENCH)
    write_image(sample_file(tree / "0", 0), np.zeros((1, 1, 3), np.uint8))
    with refused("images: '.*' has two folders with number 0; move one away"):
        read_tree(tree)


def test_a_folder_must_have_metadata_and_images(tree):
    file = tree / "00001" / "metadata.jsonl"
    file.write_text("{")
    with refused(r"images: '.*00001.metadata.jsonl' is not a JSON object"):
        read_tree(tree)
    file.write_text(json.dumps(BESIDE | {"tag": "shapes"}))
    with refused(r"images: '.*00001.metadata.jsonl' has the unknown tag 'shapes'"):
        read_tree(tree)
    file.unlink()
    with refused("images: '.*00001' has no metadata.jsonl; write"):
        read_tree(tree)
    write_metadata(tree / "00001", BESIDE)
    for sample in (tree / "00001" / "samples").iterdir():
        sample.unlink()
    with refused("images: '.*samples' has no PNG; make the images"):
        read_tree(tree)


def test_damaged_images_are_named(tree):
    file = sample_file(image_folder(tree, 0), 0)
    check_image(file)
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-20] ^= 1  # inside the pixels' checksum or its data
    for content in (whole[:-15], bytes(flipped), b"", b"text"):
        file.write_bytes(content)
        with refused(r"images: '.*0000\.png' is not a whole PNG; make the image again"):
            check_image(file)
    with refused("is not a whole PNG"):
        read_image(file)


def test_the_published_prompts_have_their_known_numbers():
    file = SHARED / "evaluation_metadata.jsonl"
    if not file.is_file():
        pytest.skip(
            "put GenEval's evaluation_metadata.jsonl into ../shared/data/geneval to check the published prompts"
        )
    prompts = read_prompts(file)
    tags = [each["tag"] for each in prompts]
    assert {tag: tags.count(tag) for tag in dict.fromkeys(tags)} == {
        "single_object": 80,
        "two_object": 99,
        "counting": 80,
        "colors": 94,
        "position": 100,
        "color_attr": 100,
    }
    assert {entry["class"] for each in prompts for entry in each["include"]} == set(CLASSES) and len(CLASSES) == 80
    colors = {entry["color"] for each in prompts for entry in each["include"] if "color" in entry}
    assert colors == set(COLORS) and len(COLORS) == 10
    assert tuple((SHARED / "object_names.txt").read_text().splitlines()) == CLASSES
