"""Solvers of Gaussian diffusion as tables of four coefficients per step.

    x <- state x + clean x_0 + slope (x_0 - previous x_0) + noise z

with x_0 the (guided) clean estimate at x, and z standard normal. Time grids and tables are computed on the host in
float64.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffusion.schedules.gaussian import BetaChain, GaussianSchedule


class TimeGrid(NamedTuple):
    """The N + 1 points of a sampler in order from noise to data.

    `time` at the first N points is the input of the network; alpha and sigma are the levels of the points. `start` is
    the standard deviation of the noise that the sampler begins with, the `scale` of `sample_gaussian`.
    """

    time: Float[np.ndarray, " points"]
    alpha: Float[np.ndarray, " points"]
    sigma: Float[np.ndarray, " points"]
    start: float = 1.0


class Table(NamedTuple):
    """The coefficients of every step."""

    state: Float[np.ndarray, " N"]
    clean: Float[np.ndarray, " N"]
    slope: Float[np.ndarray, " N"]
    noise: Float[np.ndarray, " N"]


class GaussianGrid(NamedTuple):
    """One row per step, for the scan; gates of guides and resampling are array contents, not Python branches."""

    index: Int[Array, " N"]
    time: Float[Array, " N"]
    alpha: Float[Array, " N"]
    sigma: Float[Array, " N"]
    state: Float[Array, " N"]
    clean: Float[Array, " N"]
    slope: Float[Array, " N"]
    noise: Float[Array, " N"]
    guided: Bool[Array, " N"]  # whether guides act
    resampled: Bool[Array, " N"]  # whether particles are resampled
    last: Bool[Array, " N"]


Solver = Callable[[TimeGrid], Table]
CLEAN = (1.0, 0.0)  # alpha and sigma of clean data


def at_indices(schedule: BetaChain, indices: np.ndarray, last: tuple[float, float]) -> TimeGrid:
    """Return the points of indices i of a chain, with times (i + 1) / steps, and a `last` point (alpha, sigma)."""
    times = (np.asarray(indices, np.float64) + 1) / schedule.steps
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    return TimeGrid(np.append(times, 0.0), np.append(alpha, last[0]), np.append(sigma, last[1]))


def leading(schedule: BetaChain, steps: int) -> TimeGrid:
    """Return indices k (n // steps) + 1 in decreasing order, then the level of index 0 (DDIM in Stable Diffusion).

    Raises:
      ValueError: if the chain has too few indices for `steps` steps.
    """
    check_steps(steps, schedule.steps - 1)
    ratio = schedule.steps // steps
    first = np.array([1 / schedule.steps])
    last = float(schedule.alpha(first)[0]), float(schedule.sigma(first)[0])
    return at_indices(schedule, np.arange(steps)[::-1] * ratio + 1, last)


def linspace(schedule: BetaChain, steps: int) -> TimeGrid:
    """Return indices round(linspace(0, n - 1, steps + 1)) without the first in decreasing order, then clean data."""
    check_steps(steps, schedule.steps - 1)
    return at_indices(schedule, np.linspace(0, schedule.steps - 1, steps + 1).round()[:0:-1], CLEAN)


def trailing(schedule: BetaChain, steps: int) -> TimeGrid:
    """Return indices round(n - k n / steps) - 1 for k = 0 .. steps - 1, then clean data (arXiv 2305.08891, Table 2).

    With Euler's method (`ddim(0.0)`) this is the sampler of SDXL-Lightning (arXiv 2402.13929). It starts from sigma z,
    with the sigma of the first point, because Euler's method for x / alpha starts from (sigma / alpha) z.
    """
    check_steps(steps, schedule.steps)
    at = (schedule.steps - np.arange(steps) * (schedule.steps / steps)).round() - 1
    times = at_indices(schedule, at, CLEAN)
    return times._replace(start=float(times.sigma[0]))


def lcm(schedule: BetaChain, steps: int, origin: int = 50) -> TimeGrid:
    """Return `steps` of the `origin` indices of the distillation in decreasing order, then clean data (LCM).

    Those of the distillation are i (n // origin) - 1 for i = 1 .. origin, and the position of the k-th among them, in
    decreasing order, is floor(k origin / steps), as in the public sampler of LCM (arXiv 2310.04378).
    """
    check_steps(origin, schedule.steps)
    check_steps(steps, origin)
    positions = np.linspace(0, origin, steps, endpoint=False).astype(int)
    return at_indices(schedule, (origin - positions) * (schedule.steps // origin) - 1, CLEAN)


def indices(schedule: BetaChain, steps: int, at: tuple[int, ...]) -> TimeGrid:
    """Return the points of the indices `at`, in decreasing order, then clean data.

    DMD2 (arXiv 2405.14867) has (999, 749, 499, 249) or (399,), and the one-step model of Hyper-SD (arXiv 2404.13686)
    has (800,).

    Raises:
      ValueError: if there are not `steps` indices, or they do not decrease within the chain.
    """
    if steps != len(at):
        raise ValueError(f"sample.steps: is {steps}, but {len(at)} indices are given; set it to {len(at)}")
    edges = (schedule.steps, *at, -1)
    if not at or any(after >= before for before, after in pairwise(edges)):
        raise ValueError(f"indices: must decrease within {schedule.steps - 1} .. 0, not {at}; sort and check them")
    return at_indices(schedule, np.array(at), CLEAN)


def karras(schedule: BetaChain, steps: int, power: float = 7.0) -> TimeGrid:
    """Return noise-to-signal ratios r with equal steps of r^(1 / power), then clean data (arXiv 2206.00364, Eq. 5).

    The ratios lead from that of the last index of the chain to that of index 0; the time is that of the nearest index,
    in the logarithm of the ratio.
    """
    check_steps(steps, schedule.steps)
    times = (np.arange(schedule.steps) + 1) / schedule.steps
    known = schedule.sigma(times) / schedule.alpha(times)
    first, last = known[[-1, 0]] ** (1 / power)
    ratios = np.linspace(first, last, steps) ** power
    alpha = 1 / np.sqrt(1 + ratios**2)
    index = np.interp(np.log(ratios), np.log(known), np.arange(schedule.steps)).round()
    times = np.append((index + 1) / schedule.steps, 0.0)
    return TimeGrid(times, np.append(alpha, 1.0), np.append(ratios * alpha, 0.0))


def uniform(schedule: GaussianSchedule, steps: int, first: float = 1.0, last: float = 0.0) -> TimeGrid:
    """Return points with equal steps in time from `first` to `last`."""
    check_steps(steps, 1_000_000)
    times = np.linspace(first, last, steps + 1)
    return TimeGrid(times, schedule.alpha(times), schedule.sigma(times))


TIME_GRIDS = {
    "leading": leading,
    "linspace": linspace,
    "trailing": trailing,
    "lcm": lcm,
    "karras": karras,
    "uniform": uniform,
}


def check_steps(steps: int, most: int) -> None:
    """Raise ValueError unless 1 <= steps <= most."""
    if not 1 <= steps <= most:
        raise ValueError(f"sample.steps: must lie in 1 .. {most}, not {steps}")


def ddim(eta: float = 0.0) -> Solver:
    """Return DDIM, x' = alpha' x_0 + sqrt(sigma'^2 - eta^2 v) e + eta sqrt(v) z (arXiv 2010.02502, Eq. 12).

    e = (x - alpha x_0) / sigma is the noise estimate, and v = sigma'^2 / sigma^2 (1 - alpha^2 / alpha'^2) the variance
    of q(x' | x, x_0). eta = 0 is the deterministic rule, which is Euler's method for x / alpha as a function of
    sigma / alpha; eta = 1 is DDPM (ancestral sampling).

    Raises:
      ValueError: if eta does not lie in [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"sample.eta: must lie in [0, 1], not {eta}")

    def table(times: TimeGrid) -> Table:
        (alpha, next_alpha), (sigma, next_sigma) = ends(times.alpha), ends(times.sigma)
        variance = eta**2 * (next_sigma / sigma) ** 2 * (1 - (alpha / next_alpha) ** 2)
        state = np.sqrt(np.maximum(next_sigma**2 - variance, 0)) / sigma
        return Table(state, next_alpha - state * alpha, np.zeros_like(state), np.sqrt(variance))

    return table


def dpm_solver(times: TimeGrid) -> Table:
    """Return DPM-Solver++(2M) with the midpoint rule (arXiv 2211.01095), of first order in the first and last step.

    x' = (sigma' / sigma) x + alpha' (1 - e^-h) [x_0 + (h / 2 h_previous) (x_0 - previous x_0)] with the step h in
    log(alpha / sigma).
    """
    (alpha, next_alpha), (sigma, next_sigma) = ends(times.alpha), ends(times.sigma)
    shrink = (next_sigma / next_alpha) / (sigma / alpha)
    with np.errstate(divide="ignore"):
        width = -np.log(shrink)
    clean = next_alpha * (1 - shrink)
    slope = np.zeros_like(clean)
    slope[1:-1] = clean[1:-1] / 2 * width[1:-1] / width[:-2]
    return Table(next_sigma / sigma, clean, slope, np.zeros_like(clean))


def consistency(times: TimeGrid) -> Table:
    """Return the sampler of a consistency model, x' = alpha' d + sigma' z, and x' = d in the last step (LCM).

    d = c_out x_0 + c_skip x with c_skip = 0.25 / (s^2 + 0.25), c_out = s / sqrt(s^2 + 0.25), and s ten times the index
    among 1,000 (arXiv 2310.04378).
    """
    scaled = 10 * (times.time[:-1] * 1000 - 1)
    skip, out = 0.25 / (scaled**2 + 0.25), scaled / np.sqrt(scaled**2 + 0.25)
    next_alpha, noise = times.alpha[1:].copy(), times.sigma[1:].copy()
    next_alpha[-1], noise[-1] = 1.0, 0.0
    return Table(next_alpha * skip, next_alpha * out, np.zeros_like(skip), noise)


def ends(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values at the beginning and at the end of every step."""
    return values[:-1], values[1:]


def gaussian_grid(
    times: TimeGrid, solver: Solver, guided: np.ndarray | None = None, resampled: np.ndarray | None = None
) -> GaussianGrid:
    """Return the rows of the scan; by default guides act in every step, and particles are not resampled."""
    steps = len(times.time) - 1
    guided = np.ones(steps, bool) if guided is None else guided
    resampled = np.zeros(steps, bool) if resampled is None else resampled
    table = solver(times)
    levels = (np.asarray(column[:-1], np.float32) for column in (times.time, times.alpha, times.sigma))
    numbers = (np.asarray(column, np.float32) for column in table)
    index = np.arange(steps, dtype=np.int32)
    columns = (index, *levels, *numbers, guided, resampled, index == steps - 1)
    return GaussianGrid(*(jnp.asarray(column) for column in columns))


def mask_until(times: TimeGrid, stop: float) -> Bool[np.ndarray, " N"]:
    """Return the mask of steps that begin at a time above `stop`; LiDAR's index t > 200 of 1000 is time > 0.201."""
    return times.time[:-1] > stop


def every(steps: int, period: int) -> Bool[np.ndarray, " N"]:
    """Return the mask of every `period`-th step, beginning with the first."""
    return np.arange(steps) % period == 0


def steering_mask(steps: int, marks: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)) -> Bool[np.ndarray, " N"]:
    """Return the mask of steps with resampling: at `marks` as fractions of all steps, and the last (FK steering)."""
    mask = np.zeros(steps, bool)
    mask[[min(round(mark * steps), steps - 1) for mark in marks]] = True
    mask[-1] = True
    return mask
