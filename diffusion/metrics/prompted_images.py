"""Measures of images from prompts: intervals of scores over tasks and prompts, and diversity of images."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from diffusion.metrics.statistics import Interval


def bootstrap_over_prompts(values: Iterable[tuple[str, str, float]], draws: int = 2000) -> Interval:
    """Unweighted mean over tasks of (task, prompt, value), and its 95 % bootstrap interval over prompts.

    Prompts are resampled within their tasks, with all values of a prompt.
    """
    tasks: dict[str, dict[str, list[float]]] = {}
    for task, prompt, value in values:
        tasks.setdefault(task, {}).setdefault(prompt, []).append(float(value))
    rng, totals, mean = np.random.default_rng(0), np.zeros(draws), 0.0
    for prompts in tasks.values():
        means = np.array([np.mean(each) for each in prompts.values()])
        totals += means[rng.integers(len(means), size=(draws, len(means)))].mean(axis=1) / len(tasks)
        mean += float(means.mean()) / len(tasks)
    low, high = (float(bound) for bound in np.percentile(totals, [2.5, 97.5]))
    return Interval(mean, float(totals.std()), low, high, sum(map(len, tasks.values())))


def diversity(images: Float[np.ndarray, "P N H W C"]) -> float:
    """Mean squared difference per value of two images of one prompt; 0 for a single image."""
    count = images.shape[1]
    if count < 2:
        return 0.0
    flat = images.reshape(*images.shape[:2], -1)
    # The sum over pairs is n times the squared distance from the mean.
    spread = ((flat - flat.mean(axis=1, keepdims=True)) ** 2).mean(axis=2).sum(axis=1)
    return float((2 * spread / (count - 1)).mean())
