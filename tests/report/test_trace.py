"""Pages of traces: the data in a page are the arrays, and a page needs nothing but itself."""

import base64
import io
import json
import re

import matplotlib.image
import numpy as np
import pytest

from diffusion.report.trace import MAX_SIZE, Heading, Symbols, image_page, png, token_page

HEADING = Heading("a row", {"seed": "0"}, ("samples.txt",))
NAMES = ("a", "\n", "</script><b>", "")
GUIDED = np.array([False, True, False])
random = np.random.default_rng(0)
STATES = random.integers(0, 4, (4, 2, 6))
TIMES, LEVELS = (random.uniform(size=(4, 2)).astype(np.float32) for _ in range(2))
SHOTS = random.integers(0, 256, (3, 2, 2, 5, 4, 3)).astype(np.uint8)
ERRORS = random.normal(size=(3, 2, 6)).astype(np.float32)


def data_of(page):
    """The JSON of a page."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


@pytest.fixture(scope="module")
def tokens():
    symbols = Symbols(NAMES, (0.0, 0.0, 0.0, 1.0))
    return token_page(HEADING, symbols, ["first", "second"], STATES, TIMES, LEVELS, GUIDED, ERRORS)


@pytest.fixture(scope="module")
def images():
    curves = {"sigma": [1.0, 0.5, 0.0]}
    return image_page(
        HEADING, ["a ring", "a disk"], SHOTS, 255 - SHOTS, TIMES[:3, 0], curves, GUIDED[:2], np.eye(2, dtype=bool)
    )


def test_tokens_are_the_first_state_and_what_changes(tokens):
    data = data_of(tokens)
    assert (data["title"], data["facts"], data["files"]) == ("a row", [["seed", "0"]], ["samples.txt"])
    assert tuple(data["names"]) == NAMES and data["hidden"] == [0, 0, 0, 1] and data["count"] == 4
    assert [sample["caption"] for sample in data["samples"]] == ["first", "second"]
    for index, sample in enumerate(data["samples"]):
        states = [np.array(sample["start"])]
        for flat in sample["changes"]:
            pairs = np.array(flat, int).reshape(-1, 2)
            assert (states[-1][pairs[:, 0]] != pairs[:, 1]).all()
            states.append(states[-1].copy())
            states[-1][pairs[:, 0]] = pairs[:, 1]
        np.testing.assert_array_equal(states, STATES[:, index])
        np.testing.assert_allclose(sample["times"], TIMES[:, index], rtol=1e-5)
        np.testing.assert_allclose(sample["levels"], LEVELS[:, index], rtol=1e-5)
        assert sample["errors"][0] is None and sample["errors"][2] is None, "these steps are not guided"
        np.testing.assert_allclose(sample["errors"][1], ERRORS[1, index], rtol=0.05)


def test_images_are_pngs_of_every_state(images):
    data = data_of(images)
    assert data["count"] == 3 and data["curves"] == [["sigma", [1, 0.5, 0]]] and data["guided"] == [False, True]
    for index, sample in enumerate(data["samples"]):
        assert sample["kept"] == [index == 0, index == 1]
        for name, expected in (("clean", SHOTS), ("noisy", 255 - SHOTS)):
            read = [[decoded(uri) for uri in state] for state in sample[name]]
            np.testing.assert_array_equal(read, expected[:, index])


def decoded(uri):
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    image = matplotlib.image.imread(io.BytesIO(base64.b64decode(body)))
    return np.round(255 * image[..., :3]).astype(np.uint8)


def test_gray_pictures_have_three_equal_colors_and_large_ones_are_small():
    gray = random.integers(0, 256, (3, 4, 1)).astype(np.uint8)
    np.testing.assert_array_equal(decoded(png(gray)), gray.repeat(3, axis=2))
    assert decoded(png(np.zeros((4 * MAX_SIZE, 2 * MAX_SIZE, 3), np.uint8))).shape == (MAX_SIZE, MAX_SIZE // 2, 3)


def test_pages_need_nothing_but_themselves(tokens, images):
    for page in (tokens, images):
        assert "http:" not in page and "https:" not in page and "__DATA__" not in page
        assert not re.search(r"<link|@import|url\(|src=", page)
        assert "default-src 'none'" in page, "the policy of the page forbids loading anything"
        assert page.count("</script>") == 2, "no text ends the data"
