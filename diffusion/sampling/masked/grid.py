"""Time grids of masked samplers: all quantities that depend on the step, computed on the host in float64.

Windows and gates are array contents, not Python branches, so that one compiled program serves every policy.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffusion.sampling.masked import remasking
from diffusion.sampling.masked.public_grids import StepLevels
from diffusion.sampling.masked.remasking import Rule
from diffusion.schedules.masking import inverse
from diffusion.types import Schedule


class Grid(NamedTuple):
    """One row per step, from time t to time s < t; the sampler loops over the rows."""

    index: Int[Array, " N"]
    time: Float[Array, " N"]  # t of the process, which is the input of the network
    next_time: Float[Array, " N"]  # s
    keep_mask_prob: Float[Array, " N"]  # probability that a masked position stays masked
    remask_prob: Float[Array, " N"]  # probability that a known position is masked again
    guided: Bool[Array, " N"]  # whether a policy may mask known positions again
    masks: Int[Array, "N M"]  # number of masks at s for n = 0 .. L free positions
    temperature: Float[Array, " N"]
    nucleus: Float[Array, " N"]


# The share of known positions over the time j / N of P2, by the names of its public code.
KAPPAS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda time: time,
    "sine": lambda time: np.sin(time * math.pi / 2),
    "geometric": lambda time: 1 - (1 - time) ** 2,
    "log": lambda time: np.log1p(time) / math.log(2),
    "poly2": lambda time: time**2,
    "poly05": np.sqrt,
}


def p2_mask_counts(steps: int, length: int, kappa: str = "linear") -> np.ndarray:
    """Return floor(n (1 - kappa(j / steps))) for step j = 1 .. steps and n = 0 .. length (P2, arXiv 2502.03540).

    The counts are exact up to the rounding error of float64; the public code computes them in float32.
    """
    level = 1 - KAPPAS[kappa](np.arange(1, steps + 1) / steps)
    return np.floor(level[:, None] * np.arange(length + 1) + 1e-9).astype(np.int32)


class Window(NamedTuple):
    """The interval off <= t <= on of times in which known positions may be masked again; all times by default."""

    off: float = 0.0
    on: float = 1.0


ALWAYS = Window()
MIN_ROWS = 128  # of a padded grid


def exact_masks(level: np.ndarray, length: int) -> np.ndarray:
    """Return ceil(level n) for n = 0 .. length, up to the rounding error of float64 (G-Star, arXiv 2510.08369)."""
    return np.ceil(level[:, None] * np.arange(length + 1) - 1e-9).clip(0, np.arange(length + 1)).astype(np.int32)


def grid(
    schedule: Schedule,
    steps: int,
    length: int,
    *,
    end: float = 1e-5,
    temperature: float = 1.0,
    nucleus: float = 1.0,
    ramp: tuple[float, float] = (0.0, 1.0),
    warp: Sequence[float] = (),
    process: Schedule | None = None,
    window: Window = ALWAYS,
    rule: Rule = remasking.none,
    times: Float[np.ndarray, " T"] | None = None,
    levels: StepLevels | None = None,
) -> Grid:
    """Return the grid of `steps` steps from t = 1 to `end`, for `length` positions.

    MDLM ends at 1e-5 and leaves the remaining masks to noise removal. Steps are equal in time, or warped by `warp` (see
    `warp_times`). The temperature of a step that begins at tau = 1 - t is temperature + a tau^p with `ramp` = (a, p)
    (MDM-Prime, image sampler). `rule` gives the probability that a known position is masked again while t lies in
    `window`. If `schedule` is not that of the process, the network reads the time at which `process` has the same mask
    level. `times` replace the equal steps, and `levels` the mask levels of `schedule`; the network then reads the times
    as they are (see `public_grids`).

    Raises:
      ValueError: if the number of steps is below 1, if `end` does not lie in [0, 1), if a temperature is negative, if
        the nucleus does not lie in (0, 1], if the warped times do not decrease, or if 0 <= off <= on <= 1 does not hold
        for the window.
    """
    if steps < 1:
        raise ValueError(f"sample.steps: must be at least 1, not {steps}")
    if not 0 <= end < 1:
        raise ValueError(f"sample.end: must lie in [0, 1), not {end}")
    if temperature < 0:
        raise ValueError(f"sample.temperature: must not be negative, not {temperature}")
    if not 0 < nucleus <= 1:
        raise ValueError(f"sample.nucleus: must lie in (0, 1], not {nucleus}")
    if ramp[1] < 0:
        raise ValueError(f"sample.temperature_ramp: {tuple(ramp)} has a negative power, infinite at the first step")
    if not 0 <= window.off <= window.on <= 1:
        raise ValueError(f"sample.remask: 0 <= off <= on <= 1 must hold, not off={window.off} and on={window.on}")
    times = warp_times(np.linspace(1.0, end, steps + 1) if times is None else times, warp)
    temperatures = temperature + ramp[0] * (1 - times[:-1]) ** ramp[1]
    if np.min(temperatures) < 0:
        raise ValueError(f"sample.temperature_ramp: {tuple(ramp)} makes the temperature negative")
    level = np.asarray(schedule.masked(times))
    begin, finish = levels(times) if levels else (level[:-1], level[1:])
    guided = (window.off <= times[:-1]) & (times[:-1] <= window.on)
    rates = rule(remasking.StepAlphas(1 - begin, 1 - finish, guided))
    network_times = times
    if levels is None and process is not None and process != schedule:
        network_times = np.asarray(inverse(process, jnp.asarray(1 - level)))
    columns = dict(
        index=np.arange(len(begin), dtype=np.int32),
        time=np.asarray(network_times[:-1], np.float32),
        next_time=np.asarray(network_times[1:], np.float32),
        keep_mask_prob=np.asarray(rates.keep_mask_prob, np.float32),
        remask_prob=np.asarray(rates.remask_prob, np.float32),
        guided=guided,
        masks=exact_masks(finish, length),
        temperature=np.asarray(temperatures, np.float32),
        nucleus=np.full(len(begin), nucleus, np.float32),
    )
    return Grid(**jax.device_put(columns))  # which compiles nothing, as a conversion of types would


def padded(rows: Grid) -> Grid:
    """Repeat the last row up to a power of two, at least MIN_ROWS, so that one program serves many numbers of steps."""
    missing = max(MIN_ROWS, 1 << (len(rows.index) - 1).bit_length()) - len(rows.index)
    repeats = np.append(np.ones(len(rows.index) - 1, int), missing + 1)
    # On the host: an array of JAX would be repeated by a program that is compiled for every number of steps.
    return jax.device_put(jax.tree.map(lambda column: np.repeat(np.asarray(column), repeats, axis=0), rows))


def warp_times(times: np.ndarray, warp: Sequence[float]) -> np.ndarray:
    """Return the times a t^p - c for `warp` = (a, p, c); an empty warp is the identity.

    In tau = 1 - t this is tau -> 1 - a (1 - tau)^p + c (MDM-Prime, image sampler).

    Raises:
      ValueError: if the warp is neither empty nor (a, p, c), or if the warped times do not decrease within [0, 1].
    """
    if not len(warp):
        return times
    if len(warp) != 3:
        raise ValueError(f"sample.warp: must be empty or (a, p, c), not {tuple(warp)}")
    scale, power, shift = warp
    result = scale * times**power - shift
    if np.any(np.diff(result) >= 0) or result[0] > 1 or result[-1] < 0:
        raise ValueError(f"sample.warp: {tuple(warp)} must make times fall within [0, 1]; (1, 1, 0) changes nothing")
    return result
