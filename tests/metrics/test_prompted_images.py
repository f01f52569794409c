"""Intervals over prompts, and the diversity of images, from numbers computed manually."""

import numpy as np
import pytest

from diffusion.metrics.prompted_images import bootstrap_over_prompts, diversity


def test_diversity_is_the_mean_over_pairs():
    images = np.random.default_rng(0).normal(size=(3, 4, 2, 2, 3))
    pairs = [((group[i] - group[j]) ** 2).mean() for group in images for i in range(4) for j in range(i)]
    assert diversity(images) == pytest.approx(np.mean(pairs))
    assert diversity(images[:, :1]) == 0


def test_the_bootstrap_keeps_repetitions_of_a_prompt_together():
    """Two prompts, one always correct and one never: the mean of a draw is 0, 1/2 or 1 for any repetitions."""
    values = [("single_object", "a ring", 1.0)] * 5 + [("single_object", "a plus", 0.0)] * 5
    interval = bootstrap_over_prompts(values)
    assert (interval.mean, interval.low, interval.high, interval.count) == (0.5, 0.0, 1.0, 2)
    always = bootstrap_over_prompts([(task, prompt, 1.0) for task, prompt, _ in values])
    assert (always.mean, always.low, always.high, always.error) == (1.0, 1.0, 1.0, 0.0)


def test_tasks_have_equal_weights_and_are_resampled_within():
    """A task with correct prompts alone is correct in every draw, whatever the size of the other task."""
    values = [("colors", f"prompt {number}", float(number % 2)) for number in range(40)]
    interval = bootstrap_over_prompts([*values, ("counting", "two rings", 1.0)])
    assert interval.mean == 0.75
    # Half of a binomial share of 40, around 1/2: 1.96 / 4 / sqrt(40).
    assert interval.low == pytest.approx(0.75 - 1.96 / 4 / 40**0.5, abs=0.02)
    assert interval.high == pytest.approx(0.75 + 1.96 / 4 / 40**0.5, abs=0.02)
