"""Sources of Gaussian diffusion: images with prompts and scores, and the scalar mixture."""

from types import SimpleNamespace

import numpy as np
import pytest

from diffusion.data import batches, glyphs, load_dataset
from diffusion.data.synthetic import HIGHEST, LOWEST
from diffusion.glyphs.prompts import PROMPT_LENGTH, WORDS
from diffusion.glyphs.world import examples


@pytest.fixture
def few(monkeypatch):
    for name in ("IMAGES", "REWARDED_EXAMPLES"):
        monkeypatch.setattr(glyphs, name, {"train": (0, 60), "validation": (1, 20), "test": (2, 20)})


def load(source, length=768, size=256):
    return load_dataset(SimpleNamespace(source=source, tokenizer="values", length=length, vocab_size=size))


def test_images_come_with_the_prompt_that_they_fulfill(few):
    dataset = load("shapes")
    assert dataset.domain == "prompted" and dataset.image == (16, 16, 3)
    batch = batches(dataset, "train", 8, seed=0)(0)
    assert batch["tokens"].shape == (8, 768) and batch["tokens"].max() <= 255
    assert batch["prompt"].shape == (8, PROMPT_LENGTH) and batch["prompt"].max() < len(WORDS)
    expected = examples(0, 60, "train")
    rows = dataset.split("train").rows(range(60))
    np.testing.assert_array_equal(rows["prompt"], expected.tokens)
    np.testing.assert_array_equal(rows["tokens"].reshape(60, 3, 16, 16).transpose(0, 2, 3, 1), expected.images)
    assert "score" not in rows and "label" not in rows


def test_rewards_come_with_the_share_fulfilled(few):
    rows = load("shapes_rewards").split("validation").rows(range(20))
    assert rows["score"].dtype == np.float32
    assert np.all((rows["score"] >= 0) & (rows["score"] <= 1)) and len(set(rows["score"])) > 2


def test_prompts_and_rewards_change_the_fingerprint(few, monkeypatch):
    before = load("shapes_rewards").fingerprint
    original = glyphs.world.reward_examples
    flipped = lambda *inputs: original(*inputs)._replace(rewards=1 - original(*inputs).rewards)  # noqa: E731
    monkeypatch.setattr(glyphs.world, "reward_examples", flipped)
    assert load("shapes_rewards").fingerprint != before


def test_points_of_the_mixture_have_its_moments():
    tokens = load("gaussian_mixture", 1, 1024).split("train").rows(range(20_000))["tokens"][:, 0]
    x = LOWEST + tokens * (HIGHEST - LOWEST) / 1023
    assert x.mean() == pytest.approx(-0.45, abs=0.04)
    assert (x**2).mean() == pytest.approx(3.12, abs=0.08)
