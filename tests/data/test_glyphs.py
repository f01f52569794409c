"""Sources of Gaussian diffusion: images with prompts and scores, and the scalar mixture."""

import numpy as np
import pytest

from diffusion.data import glyphs, load_dataset
from diffusion.data.synthetic import HIGHEST, LOWEST
from diffusion.glyphs.prompts import PROMPT_LENGTH, WORDS
from diffusion.glyphs.world import examples
from tests.data.files import fields, rows


@pytest.fixture(autouse=True)
def few(monkeypatch):
    for name in ("IMAGES", "REWARDED_EXAMPLES"):
        monkeypatch.setattr(glyphs, name, {"train": (0, 60), "validation": (1, 20), "test": (2, 20)})


def test_images_come_with_the_prompt_that_they_fulfill():
    dataset = load_dataset(fields("shapes"))
    assert dataset.domain == "prompted" and dataset.image == (16, 16, 3)
    train, expected = rows(dataset, "train"), examples(0, 60, "train")
    assert train["prompt"].shape == (60, PROMPT_LENGTH) and train["prompt"].max() < len(WORDS)
    np.testing.assert_array_equal(train["prompt"], expected.tokens)
    np.testing.assert_array_equal(train["tokens"].reshape(60, 3, 16, 16).transpose(0, 2, 3, 1), expected.images)
    assert train.keys() == {"tokens", "weights", "prompt"}


def test_rewards_are_the_shares_fulfilled_and_part_of_the_fingerprint(monkeypatch):
    dataset = load_dataset(fields("shapes_rewards"))
    score = rows(dataset, "validation")["score"]
    assert score.dtype == np.float32 and np.all((score >= 0) & (score <= 1)) and len(set(score)) > 2
    original = glyphs.world.reward_examples

    def flipped(*inputs):
        return original(*inputs)._replace(rewards=1 - original(*inputs).rewards)

    monkeypatch.setattr(glyphs.world, "reward_examples", flipped)
    assert load_dataset(fields("shapes_rewards")).fingerprint != dataset.fingerprint


def test_points_of_the_mixture_have_its_moments():
    tokens = rows(load_dataset(fields("gaussian_mixture")), "train")["tokens"][:, 0]
    x = LOWEST + tokens * (HIGHEST - LOWEST) / 1023
    assert x.mean() == pytest.approx(-0.45, abs=0.04)
    assert (x**2).mean() == pytest.approx(3.12, abs=0.08)
