"""Bounds of uniform-state diffusion (UDLM) on -log p(x), in nats per sequence."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion.categorical import EXCLUDED
from diffusion.objectives.uniform import integrand_nats
from diffusion.processes.uniform import UniformDiffusion
from diffusion.rng import Draws
from diffusion.schedules.masking import inverse
from diffusion.types import Denoise, Logits, LossMask, Tokens

# How much denser small levels are drawn: by a factor of up to 1 + 1 / NEAR than large ones.
NEAR = 0.2


def bound_uniform(
    denoise: Denoise, process: UniformDiffusion, tokens: Tokens, weights: LossMask, draws: Draws
) -> Float[Array, " B"]:
    """Draw an unbiased estimate of the continuous-time NELBO of UDLM (arXiv 2412.10193), in nats per sequence.

    The level l lies in [0, 1 - alpha(1)), with a density ~ 1 / (l + `NEAR` (1 - alpha(1))): neither end is cut off, no
    weight has a pole, and on a chain of length 256 the variance is a third of that of uniform levels. If alpha(0) < 1,
    levels below that of t = 0 are drawn too, with the network's time fixed at 0: this part is the reconstruction term.
    The prior term is added. For data p(x) and the exact leave-one-out posterior the mean is the entropy plus
    KL(q(z_1) || uniform). Noise reaches positions of weight 0 (padding) as well, and what they cost is not counted.
    """
    top = float(process.schedule.masked(np.ones(())))
    share = jnp.minimum(NEAR * jnp.expm1(draws.uniform * np.log1p(1 / NEAR)), 1.0)
    level, density = top * share, 1 / (np.log1p(1 / NEAR) * (share + NEAR))
    time = inverse(process.schedule, 1 - level)
    nats = top / density * integrand_nats(process, denoise, tokens, weights, level, time, draws)
    return nats + process.prior_nats() * jnp.sum(weights, axis=1)


def step_nats(
    process: UniformDiffusion,
    logits: Logits,
    noisy: Tokens,
    clean: Tokens,
    level: Float[Array, " B"],
    next_level: Float[Array, " B"],
) -> Float[Array, "B L"]:
    """Compute KL(q(z_s | z_t, x) || p(z_s | z_t)) of one reverse step, in nats per position."""
    exact = process.posterior(jnp.where(process.one_hot(clean) > 0, 0.0, EXCLUDED), noisy, level, next_level)
    model = process.posterior(logits, noisy, level, next_level)
    return jnp.sum(jnp.exp(exact) * (exact - model), axis=-1)


@dataclass(frozen=True)
class BoundUniformSteps:
    """Draw the bound of the ancestral sampler with `steps` equal steps from t = 1 to t = 0, in nats per sequence.

    The bound is sum_k KL(q(z_{k-1} | z_k, x) || p(z_{k-1} | z_k)) plus the prior term, with z_0 = x and both laws from
    `UniformDiffusion.posterior` (UDLM in discrete time, arXiv 2412.10193). The draw takes one step and weighs it by the
    number of steps. It converges to the continuous bound from above as steps grow.
    """

    steps: int

    def __call__(
        self, denoise: Denoise, process: UniformDiffusion, tokens: Tokens, weights: LossMask, draws: Draws
    ) -> Float[Array, " B"]:
        times = np.arange(1, self.steps + 1) / self.steps
        levels = np.asarray(process.schedule.masked(times), np.float32)
        index = jnp.minimum((draws.uniform * self.steps).astype(jnp.int32), self.steps - 1)
        level = jnp.asarray(levels)[index]
        before = jnp.asarray(np.concatenate([[0], levels[:-1]]), jnp.float32)[index]
        noisy = process.noised(draws.keys, tokens, level)
        nats = step_nats(process, denoise(noisy, jnp.asarray(times, jnp.float32)[index]), noisy, tokens, level, before)
        return self.steps * jnp.sum(nats * weights, axis=1) + process.prior_nats() * jnp.sum(weights, axis=1)


def estimator(name: str) -> Callable[..., Float[Array, " B"]]:
    """Look up an estimator of uniform-state diffusion; "bound_uniform_steps_32" is `BoundUniformSteps(32)`.

    Raises:
      ValueError: for an unknown name; the message lists the known ones.
    """
    if name == "bound_uniform":
        return bound_uniform
    if match := re.fullmatch(r"bound_uniform_steps_([1-9]\d*)", name):
        return BoundUniformSteps(int(match[1]))
    raise ValueError(
        f"evaluate.estimator: unknown name {name!r} for process.name=uniform; known: bound_uniform, "
        "bound_uniform_steps_N (N = 1, 2, ...)"
    )
