"""Law 1 for Gaussian diffusion: a bound under every denoiser, and the entropy of a mixture under the exact one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import PixelCodec
from diffusion.likelihood.gaussian import PixelBound, gaussian_bound
from diffusion.oracles import mixture as oracle
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.rng import Draws
from diffusion.sampling.gaussian import solvers
from diffusion.schedules.gaussian import CosineSignal, ScaledLinear
from tests.weights import keys_of

MIXTURE = oracle.mixture([0.5, 0.3, 0.2], [-2, 0.5, 2], np.array([0.5, 0.4, 0.6]) ** 2)


def exact(x, row, carry):
    return oracle.clean(MIXTURE, x, row.alpha, row.sigma), carry


def path(steps):
    """A path with equal steps of log SNR, and a clean last point."""
    ratios = np.exp(np.linspace(np.log(200.0), np.log(0.02), steps))
    alpha = 1 / np.sqrt(1 + ratios**2)
    return solvers.TimeGrid(np.zeros(steps + 1), np.append(alpha, 1.0), np.append(ratios * alpha, 0.0))


def mean_bound(predict, steps, x):
    return jax.jit(lambda keys, x: gaussian_bound(predict, keys, x, path(steps)))(keys_of(len(x), seed=1), x)


def test_the_bound_of_the_exact_denoiser_converges_to_the_entropy():
    x = oracle.draw(jax.random.key(0), MIXTURE, 5000)
    nats = -oracle.log_density(MIXTURE, x)
    gaps = {steps: mean_bound(exact, steps, x) - nats for steps in (10, 100, 1000)}
    means = {steps: float(gap.mean()) for steps, gap in gaps.items()}
    error = {steps: float(gap.std()) / 5000**0.5 for steps, gap in gaps.items()}
    # A sum over N steps exceeds the integral by about 1 / N.
    assert means[10] > 5 * means[100] > 15 * means[1000]
    assert -3 * error[1000] < means[1000] < 0.04 + 3 * error[1000]


@pytest.mark.parametrize("wrong", ["shifted", "shrunk", "blind"])
def test_wrong_denoisers_have_a_valid_bound(wrong):
    """The integral of exp(-bound) is at most 1 (Kraft), and the mean is above the entropy."""

    def predict(x, row, carry):
        clean = oracle.clean(MIXTURE, x, row.alpha, row.sigma)
        return {"shifted": clean + 0.3, "shrunk": 0.8 * clean, "blind": jnp.zeros_like(x)}[wrong], carry

    points, draws = jnp.linspace(-6, 6, 241), 200
    x = jnp.repeat(points, draws)[:, None]
    bounds = mean_bound(predict, 60, x).reshape(len(points), draws).mean(axis=1)
    assert float(jnp.sum(jnp.exp(-bounds)) * 0.05) < 1.02
    data = oracle.draw(jax.random.key(0), MIXTURE, 20_000)
    gap = mean_bound(predict, 60, data) + oracle.log_density(MIXTURE, data)
    assert float(gap.mean()) > 0.05


def test_paths_with_equal_steps_in_time_have_a_valid_bound():
    """The bound is loose, as few of the steps have small noise."""
    x = oracle.draw(jax.random.key(0), MIXTURE, 5000)
    gaps = []
    for steps in (50, 400):
        grid = solvers.uniform(CosineSignal(), steps, first=0.995)
        bound = jax.jit(lambda keys, x, grid=grid: gaussian_bound(exact, keys, x, grid))(keys_of(len(x), seed=1), x)
        gaps.append(float((bound + oracle.log_density(MIXTURE, x)).mean()))
    assert all(0 < gap < 3 for gap in gaps), gaps


@pytest.mark.parametrize("kind", ["exact", "shifted", "shrunk"])
def test_discrete_values_have_a_valid_bound(kind):
    """The Kraft sum over all 40 values is at most 1; under the exact denoiser the bound is close to the true value."""
    codec, process, draws = PixelCodec(40, -6.0, 6.0), GaussianDiffusion(ScaledLinear(), "clean"), 200

    def denoise(x, time):
        schedule = process.schedule
        clean = oracle.clean(MIXTURE, x, schedule.alpha(time[0]), schedule.sigma(time[0]))
        return {"exact": clean, "shifted": clean + 0.02, "shrunk": 0.98 * clean}[kind]

    tokens = jnp.repeat(jnp.arange(40, dtype=jnp.int32), draws)[:, None]
    estimate = PixelBound(codec, solvers.karras(process.schedule, 400))
    noise = Draws(keys_of(len(tokens), seed=1), jnp.zeros(len(tokens)))
    nats = jax.jit(lambda tokens: estimate(denoise, process, tokens, jnp.ones(tokens.shape), noise))(tokens)
    means = np.asarray(nats, np.float64).reshape(40, draws).mean(axis=1)
    assert np.exp(-means).sum() < 1.02
    edges = jnp.linspace(-6 - codec.step / 2, 6 + codec.step / 2, 40 * 50 + 1)
    middles = ((edges[1:] + edges[:-1]) / 2)[:, None]
    masses = np.asarray(jnp.exp(oracle.log_density(MIXTURE, middles)), np.float64).reshape(40, 50).sum(axis=1)
    masses *= codec.step / 50
    gap = float(np.sum(masses * (means + np.log(masses))))
    assert (0 < gap < 0.15) if kind == "exact" else gap > 0.2
