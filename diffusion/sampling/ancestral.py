"""The ancestral sampler of any discrete process: one scan of steps, each a draw from the process's posterior."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffusion.categorical import draw_two_stage
from diffusion.rng import fold
from diffusion.sampling.gaussian.solvers import steering_mask
from diffusion.sampling.gaussian.steering import Steering
from diffusion.sampling.masked.sampler import Samples, Trace
from diffusion.sampling.uniform_lidar import Guide
from diffusion.types import Denoiser, Keys, Logits, Params, Process, Schedule, Symbols


class Steps(NamedTuple):
    """One row per reverse step; the sampler scans over the rows."""

    index: Int[Array, " N"]
    time: Float[Array, " N"]  # the network's input
    level: Float[Array, " N"]  # 1 - alpha(t)
    next_level: Float[Array, " N"]
    temperature: Float[Array, " N"]  # of the prediction, before it enters the posterior
    resampled: Bool[Array, " N"]  # whether particles, if there are any, are resampled after the step

    @property
    def last(self) -> Bool[Array, "*N"]:
        """Whether the step ends at clean data."""
        return self.next_level == 0


def equal_steps(schedule: Schedule, steps: int, *, end: float = 0.0, temperature: float = 1.0) -> Steps:
    """Return `steps` steps that are equal in time from t = 1 to `end`, and one from `end` to clean data unless it is 0.

    Levels are computed on the host in float64. The last step ends at the level 0, also if alpha(0) < 1.

    Raises:
      ValueError: for fewer than one step, an end outside [0, 1), or a temperature that is not positive.
    """
    if steps < 1:
        raise ValueError(f"sample.steps: must be at least 1, not {steps}")
    if not 0 <= end < 1:
        raise ValueError(f"sample.end: must lie in [0, 1), not {end}")
    if temperature <= 0:
        raise ValueError(f"sample.temperature: must be positive, not {temperature}")
    times = np.linspace(1.0, end, steps + 1)
    times = times[:-1] if end == 0 else times
    levels = np.append(np.asarray(schedule.masked(times)), 0.0)
    return Steps(
        index=jnp.arange(len(times)),
        time=jnp.asarray(times, jnp.float32),
        level=jnp.asarray(levels[:-1], jnp.float32),
        next_level=jnp.asarray(levels[1:], jnp.float32),
        temperature=jnp.full(len(times), temperature, jnp.float32),
        resampled=jnp.asarray(steering_mask(len(times))),
    )


@dataclass(frozen=True)
class AncestralSampler:
    """Ancestral sampling, z_s ~ p(z_s | z_t) independently at every position, with one evaluation per step.

    For uniform-state diffusion (UDLM, arXiv 2412.10193) every position may change in every step. `final="argmax"` takes
    the most probable value in the last step instead of a draw. A `guide` changes the law of every step. With
    `resample`, particles are resampled by the reward of clean estimates, which are draws from p(x | z_t) at the state
    before the step, and of the samples themselves after the last step. The states of the first `trace` examples are
    returned too.
    """

    denoiser: Denoiser
    process: Process
    final: Literal["draw", "argmax"] = "draw"
    guide: Guide | None = None
    resample: Steering | None = None
    trace: int = 0

    def __call__(self, params: Params, keys: Keys, prompt: Symbols, rows: Steps, cond: Any = None) -> Samples:
        """Sample the positions of `prompt` [B, N] that hold no token (C or above); the others never change.

        Example i depends on keys[i] and not on other examples, unless particles are resampled.
        """
        size, length = prompt.shape
        fixed = prompt < self.process.vocabulary

        def posterior(logits: Logits, tokens: Symbols, level: Array, next_level: Array) -> Float[Array, "B N S"]:
            return self.process.posterior(logits, tokens, jnp.full(size, level), jnp.full(size, next_level))

        def step(carry: tuple[Symbols, Array, Any], row: Steps) -> tuple[Any, Int[Array, "n N"] | None]:
            tokens, idle, weights = carry
            step_keys = fold(keys, row.index)
            logits = self.denoiser(params, tokens, jnp.full(size, row.time), cond).astype(jnp.float32)
            logits = logits / row.temperature
            log_probs = posterior(logits, tokens, row.level, row.next_level)
            if self.guide is not None:
                log_probs = self.guide(tokens, log_probs, row.level, row.next_level)
            drawn = draw_two_stage(fold(step_keys, "token"), log_probs)
            if self.final == "argmax":
                drawn = jnp.where(row.last, jnp.argmax(log_probs, axis=-1), drawn)
            after = jnp.where(fixed, tokens, drawn.astype(tokens.dtype))
            idle += jnp.all(after == tokens, axis=1)
            if self.resample is not None:
                clean = posterior(logits, tokens, row.level, jnp.zeros(()))
                estimate = jnp.where(fixed, tokens, draw_two_stage(fold(step_keys, "estimate"), clean))
                estimate = jnp.where(row.last, after, estimate)
                after, _, _, weights = self.resample(step_keys, after, estimate, None, weights, row)
            return (after, idle, weights), after[: self.trace] if self.trace else None

        zeros = jnp.zeros(size, jnp.int32)
        start = jnp.where(fixed, prompt, self.process.prior(keys, length // self.process.subtokens))
        weights = None if self.resample is None else self.resample.init(size)
        (tokens, idle, _), shown = jax.lax.scan(step, (start, zeros, weights), rows)
        trace = None
        if shown is not None:
            times = jnp.broadcast_to(jnp.append(rows.time, 0.0)[:, None], (len(rows.time) + 1, self.trace))
            states = jnp.concatenate([start[None, : self.trace], shown])
            trace = Trace(states, times, jnp.zeros_like(rows.last), None)
        return Samples(tokens, jnp.full(size, len(rows.index)), idle, zeros, zeros, trace)
