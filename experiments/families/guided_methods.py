"""Methods of sampling from prompts under a reward: what each is made of, in which steps it acts, and what it costs."""

from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from diffusion.sampling.gaussian import solvers
from experiments.families.base import lookup


class Method(NamedTuple):
    """A guide by name, whether particles are resampled while sampling, and whether the best of several are kept."""

    guide: str = ""
    steered: bool = False
    chosen: bool = False

    @property
    def gradient(self) -> bool:
        """Whether the guide needs the gradient of the reward."""
        return self.guide in ("gradient", "condition")

    @property
    def ahead(self) -> bool:
        """Whether the guide reads lookahead samples."""
        return self.guide in ("lidar", "safe_denoiser", "repellency")


METHODS = {
    "plain": Method(),
    "best_of": Method(chosen=True),
    "gradient": Method("gradient"),
    "condition": Method("condition"),
    "steering": Method(steered=True),
    "steering_best_of": Method(steered=True, chosen=True),
    "lidar": Method("lidar"),
    "lidar_best_of": Method("lidar", chosen=True),
    "lidar_steering": Method("lidar", steered=True),
    "lidar_steering_best_of": Method("lidar", steered=True, chosen=True),
    "safe_denoiser": Method("safe_denoiser"),
    "repellency": Method("repellency"),
}


class Cost(NamedTuple):
    """What one prompt's samples take: evaluations of the network, backward passes through it, rewards."""

    evaluations: int
    backward: int
    rewards: int


def method_of(config: ConfigDict) -> Method:
    """The method of a config; raises ValueError for an unknown one."""
    return lookup(METHODS, config.sample.gaussian.method, "sample.gaussian.method")


def draws_of(config: ConfigDict) -> int:
    """Samples that are drawn for one prompt."""
    options = config.sample.gaussian
    return options.images * (options.best_of if method_of(config).chosen else 1)


def active_steps(config: ConfigDict, times: solvers.TimeGrid) -> tuple[np.ndarray, np.ndarray]:
    """Steps in which guides act, and steps after which particles are resampled."""
    options, method, steps = config.sample.gaussian, method_of(config), len(times.time) - 1
    acting = solvers.mask_until(times, options.lookahead.stop + 1 / 1000)
    if method.gradient:
        acting = solvers.every(steps, options[method.guide].period)
    return acting, solvers.steering_mask(steps) if method.steered else np.zeros(steps, bool)


def cost(config: ConfigDict, grid: solvers.GaussianGrid, per: int, per_ahead: int) -> Cost:
    """Evaluations, backward passes and rewards of one prompt.

    A prediction takes `per` evaluations, one of a lookahead sample `per_ahead`. The gradient by the conditioning, in
    contrast to that by the state, has one backward pass. Rewards that rank samples (best of several, lookahead samples)
    count; those that measure them do not.
    """
    ahead, method, draws = config.sample.gaussian.lookahead, method_of(config), draws_of(config)
    evaluations, backward, acting = len(grid.index) * per * draws, 0, int(grid.guided.sum())
    rewards = draws * (int(grid.resampled.sum()) + method.chosen)
    if method.gradient:
        rewards += acting * draws
        backward = acting * draws * (per if method.guide == "gradient" else 1)
        evaluations += acting * per * draws if method.guide == "condition" else 0
    if method.ahead:
        evaluations += ahead.particles * ahead.steps * per_ahead
        rewards += ahead.particles
    return Cost(evaluations, backward, rewards)
