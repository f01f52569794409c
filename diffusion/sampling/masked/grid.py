"""Time grids: everything that changes from step to step is an array, so that one program serves every policy.

Tables are computed on the host in float64 and fed to the scan; windows and gates are contents, never branches.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffusion.sampling.masked import remasking
from diffusion.sampling.masked.remasking import Rule
from diffusion.schedules.masking import inverse
from diffusion.types import Schedule


class Grid(NamedTuple):
    """One row a step, from time t to the cleaner time s; a scan hands rows to the sampler one by one."""

    index: Int[Array, " N"]
    time: Float[Array, " N"]  # of the process, which the network is told
    next_time: Float[Array, " N"]
    keep_mask_prob: Float[Array, " N"]  # probability that a mask is still one at s
    remask_prob: Float[Array, " N"]  # and that a known position is one
    guided: Bool[Array, " N"]  # whether a policy that chooses among known positions may do so
    masks: Int[Array, "N M"]  # masks left at s when n positions are free, for n = 0 .. L
    temperature: Float[Array, " N"]
    nucleus: Float[Array, " N"]


def kept_masks(steps: int, length: int) -> np.ndarray:
    """floor(n (1 - j / steps)) masks after step j = 1 .. steps, for n = 0 .. length (P2, arXiv 2502.03540)."""
    left = np.arange(steps - 1, -1, -1)
    return (np.arange(length + 1)[None] * left[:, None] // steps).astype(np.int32)


class Window(NamedTuple):
    """The times off <= t <= on within which remasking is on; by default all."""

    off: float = 0.0
    on: float = 1.0


ALWAYS = Window()


def exact_masks(level: np.ndarray, length: int) -> np.ndarray:
    """ceil(level * n) for n = 0 .. length, guarded against the last bit of float64 (G-Star, arXiv 2510.08369)."""
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
) -> Grid:
    """`steps` steps from t = 1 to `end` (MDLM: 1e-5, the rest is left to noise removal) for `length` positions.

    They are equal, or warped by `warp` = (a, p, c): tau = 1 - t becomes 1 - a (1 - tau)^p + c. The temperature of a
    step that begins at tau is temperature + a tau^p with `ramp` = (a, p) (MDM-Prime's image sampler). `rule` says what
    is masked again while t lies in `window`. Where `schedule` is not that of the process, the network is told the
    time at which the `process` has the same level.

    Raises:
      ValueError: for a step count below 1, an end outside [0, 1), a temperature or nucleus outside its range, a ramp
        that makes one so, a warp whose times do not fall, or a window that is none.
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
    times = warped(np.linspace(1.0, end, steps + 1), warp)
    temperatures = temperature + ramp[0] * (1 - times[:-1]) ** ramp[1]
    if np.min(temperatures) < 0:
        raise ValueError(f"sample.temperature_ramp: {tuple(ramp)} makes the temperature negative")
    level = np.asarray(schedule.masked(times))
    guided = (window.off <= times[:-1]) & (times[:-1] <= window.on)
    rates = rule(remasking.StepAlphas(1 - level[:-1], 1 - level[1:], guided))
    told = times if process in (None, schedule) else np.asarray(inverse(process, jnp.asarray(1 - level)))
    return Grid(
        index=jnp.arange(steps),
        time=jnp.asarray(told[:-1], jnp.float32),
        next_time=jnp.asarray(told[1:], jnp.float32),
        keep_mask_prob=jnp.asarray(rates.keep_mask_prob, jnp.float32),
        remask_prob=jnp.asarray(rates.remask_prob, jnp.float32),
        guided=jnp.asarray(guided),
        masks=jnp.asarray(exact_masks(level[1:], length)),
        temperature=jnp.asarray(temperatures, jnp.float32),
        nucleus=jnp.full(steps, nucleus, jnp.float32),
    )


def warped(times: np.ndarray, warp: Sequence[float]) -> np.ndarray:
    """Times under tau -> 1 - a (1 - tau)^p + c, that is t -> a t^p - c; an empty warp is the identity.

    Raises:
      ValueError: unless the warp is (a, p, c) and the times fall from at most 1 to at least 0.
    """
    if not len(warp):
        return times
    if len(warp) != 3:
        raise ValueError(f"sample.warp: must be empty or (a, p, c), not {tuple(warp)}")
    scale, power, shift = warp
    moved = scale * times**power - shift
    if np.any(np.diff(moved) >= 0) or moved[0] > 1 or moved[-1] < 0:
        raise ValueError(f"sample.warp: {tuple(warp)} must make times fall within [0, 1]; (1, 1, 0) changes nothing")
    return moved
