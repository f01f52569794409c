"""The checker detects exactly the glyphs of a scene, also under noise, and refuses arrays that are not images."""

import numpy as np
import pytest

from diffusion.glyphs.checker import check, detect, prompt_reward
from diffusion.glyphs.prompts import parse, prompts
from diffusion.glyphs.world import PALETTE, Scene, Thing, correct_scene, near_miss, objects, render, reward_examples
from diffusion.metrics import geneval
from diffusion.metrics.geneval import TASKS
from tests.checks import refused

EACH = 60  # scenes of each task


@pytest.fixture(scope="module")
def scenes():
    """Metadata, a scene that fulfills it and a near miss, 360 times over all tasks."""
    rng, drawn = np.random.default_rng(0), []
    for task in TASKS:
        texts = prompts(task)
        for index in rng.permutation(max(EACH, len(texts)))[:EACH] % len(texts):
            metadata = parse(texts[index])
            drawn.append((metadata, correct_scene(rng, metadata), near_miss(rng, metadata)))
    return drawn


def test_detections_equal_the_true_objects(scenes):
    """Classes, colors and boxes in the same order, so that verdicts and graded rewards agree exactly."""
    for metadata, right, wrong in scenes:
        for scene in (right, wrong):
            assert detect(render(scene)) == objects(scene)
        assert check(render(right), metadata) and prompt_reward(render(right), metadata) == 1
        assert not check(render(wrong), metadata)
        assert prompt_reward(render(wrong), metadata) == geneval.reward(metadata, objects(wrong)) < 1


def test_noise_of_one_tenth_preserves_98_percent_of_verdicts(scenes):
    rng = np.random.default_rng(2)

    def noisy(scene):
        return render(scene) + rng.normal(0, 0.1, (16, 16, 3))

    assert np.mean([check(noisy(right), metadata) for metadata, right, _ in scenes]) >= 0.98
    assert np.mean([check(noisy(wrong), metadata) for metadata, _, wrong in scenes]) <= 0.01


def test_bytes_and_real_numbers_give_equal_detections_and_are_clipped():
    """Without clipping, as in a saved image, noise beyond white would be foreground."""
    data = reward_examples(3, 60)
    for image, text, reward in zip(data.images, data.prompts, data.rewards, strict=True):
        assert detect(image) == detect(image / 255)
        assert np.float32(prompt_reward(image, parse(text))) == reward
    image = render(Scene((Thing("plus", "black", 3, 4),), 0.87))
    image[9:14, 9:14] = 1.4
    assert [each.name for each in detect(image)] == ["plus"]


def test_patches_of_known_shapes():
    """A ring without a corner, a ring of two sides, specks, and two glyphs that touch."""
    ring = Scene((Thing("ring", "blue", 3, 4),), 0.87)
    image = render(ring)
    image[3, 4] = 0.87
    (seen,) = detect(image)
    assert seen == ("ring", 15 / 16, (4, 3, 9, 8), "blue")
    image = render(ring)
    image[3:8, 8], image[7, 4:9] = 0.87, 0.87
    (seen,) = detect(image)
    assert seen.score < 0.7 and seen.box == (4, 3, 8, 7) and not check(image, parse("a ring"))
    assert detect(np.full((16, 16, 3), 0.9)) == []
    # A patch has at least five pixels.
    image = np.full((16, 16, 3), 0.87)
    image[2, 2:6] = PALETTE["red"]
    assert detect(image) == []
    image[2, 6] = PALETTE["red"]
    assert [each.box for each in detect(image)] == [(2, 2, 7, 3)]
    touching = render(Scene((Thing("square", "red", 0, 0), Thing("square", "red", 5, 0))))
    assert [each.box for each in detect(touching)] == [(0, 0, 5, 10)] and not check(touching, parse("a square"))
    corner = render(Scene((Thing("square", "red", 0, 0), Thing("square", "red", 5, 5))))
    assert check(corner, parse("two squares"))


def test_the_color_is_the_most_frequent_one_and_a_row_may_be_missing():
    image = render(Scene((Thing("square", "green", 6, 6),)))
    image[6:8, 6:11] = PALETTE["purple"]
    (seen,) = detect(image)
    assert seen == ("square", 1.0, (6, 6, 11, 11), "green")
    # A square without its upper row has 20 of 25 pixels.
    image[6, 6:11] = 0.87
    (seen,) = detect(image)
    assert seen == ("square", 0.8, (6, 7, 11, 11), "green")
    assert check(image, parse("a green square")) and prompt_reward(image, parse("a purple square")) == 0.5


def test_a_faint_glyph_is_detected_above_45_percent_of_its_color():
    purple, gray = PALETTE["purple"], np.full(3, 0.87)
    for share, count in ((0.44, 0), (0.46, 1)):
        image = np.tile(gray, (16, 16, 1))
        image[4:9, 4:9] = gray + share * (purple - gray)
        assert len(detect(image)) == count


def test_what_is_not_an_image_is_refused():
    for shape in ((3, 16, 16), (16, 16), (32, 32, 3), (1, 16, 16, 3)):
        with refused(r"^image: shape \(.*, not \(16, 16, 3\); pass row, column, red-green-blue$"):
            detect(np.zeros(shape))
    image = np.full((16, 16, 3), 0.87)
    image[0, 0, 0] = np.nan
    with refused(r"^image: 1 values are not finite; the sampler has diverged$"):
        check(image, parse("a ring"))
