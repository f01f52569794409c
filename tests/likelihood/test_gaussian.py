"""Law 1 for Gaussian diffusion: a bound under every denoiser, and the entropy of a mixture under the exact one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.codecs.subtokens import PixelCodec
from diffusion.likelihood.gaussian import PixelBound, gaussian_bound
from diffusion.oracles import mixture as oracle
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.rng import Draws
from diffusion.sampling.gaussian import solvers
from diffusion.schedules.gaussian import CosineSignal, ScaledLinear
from tests.weights import keys_of

MIXTURE = oracle.mixture([0.5, 0.3, 0.2], [-2, 0.5, 2], np.array([0.5, 0.4, 0.6]) ** 2)
DATA = oracle.draw(jax.random.key(0), MIXTURE, 20_000)
EXACT = (1.0, 0.0)


def log_density(x):
    return np.asarray(jax.jit(oracle.log_density)(MIXTURE, x), np.float64)


def path(steps):
    """A path with equal steps of log SNR, and a clean last point."""
    ratios = np.exp(np.linspace(np.log(200.0), np.log(0.02), steps))
    alpha = 1 / np.sqrt(1 + ratios**2)
    return solvers.TimeGrid(np.zeros(steps + 1), np.append(alpha, 1.0), np.append(ratios * alpha, 0.0))


def bounds(grid):
    """Return the bound of x under the denoiser `factor` times the exact one plus `shift`, as one program."""

    @jax.jit
    def run(x, factor, shift):
        def predict(x, row, carry):
            return factor * oracle.clean(MIXTURE, x, row.alpha, row.sigma) + shift, carry

        return gaussian_bound(predict, keys_of(len(x), seed=1), x, grid)

    return lambda x, factor, shift: np.asarray(run(x, factor, shift), np.float64)


def test_the_bound_of_the_exact_denoiser_converges_to_the_entropy():
    x, nats = DATA[:5000], -log_density(DATA[:5000])
    coarse, fine = (bounds(path(steps))(x, *EXACT) - nats for steps in (10, 320))
    # A sum over N steps exceeds the integral by about 1 / N.
    error = fine.std() / 5000**0.5
    assert coarse.mean() > 10 * fine.mean() and -3 * error < fine.mean() < 0.08 + 3 * error
    # With equal steps in time the bound is loose, as few of the steps have small noise.
    assert 0 < (bounds(solvers.uniform(CosineSignal(), 50, first=0.995))(x, *EXACT) - nats).mean() < 3


def test_wrong_denoisers_have_a_valid_bound():
    """The integral of exp(-bound) is at most 1 (Kraft), and the mean is above the entropy."""
    points, draws = np.linspace(-6, 6, 241), 200
    x = jnp.concatenate([jnp.repeat(jnp.asarray(points, jnp.float32), draws)[:, None], DATA])
    bound = bounds(path(60))
    for factor, shift in ((1.0, 0.3), (0.8, 0.0), (0.0, 0.0)):
        nats = bound(x, factor, shift)
        means = nats[: len(points) * draws].reshape(len(points), draws).mean(axis=1)
        assert np.exp(-means).sum() * 0.05 < 1.02
        assert (nats[len(points) * draws :] + log_density(DATA)).mean() > 0.05


def test_discrete_values_have_a_valid_bound():
    """The Kraft sum over all 40 values is at most 1; under the exact denoiser the bound is close to the true value."""
    codec, process, draws = PixelCodec(40, -6.0, 6.0), GaussianDiffusion(ScaledLinear(), "clean"), 200
    tokens = jnp.repeat(jnp.arange(40, dtype=jnp.int32), draws)[:, None]
    estimate = PixelBound(codec, solvers.karras(process.schedule, 400))
    noise = Draws(keys_of(len(tokens), seed=1), jnp.zeros(len(tokens)))

    def denoise(factor, shift, x, time):
        alpha, sigma = process.schedule.alpha(time[0]), process.schedule.sigma(time[0])
        return factor * oracle.clean(MIXTURE, x, alpha, sigma) + shift

    @jax.jit
    def run(factor, shift):
        return estimate(partial(denoise, factor, shift), process, tokens, jnp.ones(tokens.shape), noise)

    edges = np.linspace(-6 - codec.step / 2, 6 + codec.step / 2, 40 * 50 + 1)
    middles = jnp.asarray((edges[1:] + edges[:-1]) / 2, jnp.float32)[:, None]
    masses = np.exp(log_density(middles)).reshape(40, 50).mean(axis=1) * codec.step
    for (factor, shift), low, high in ((EXACT, 0, 0.15), ((1.0, 0.02), 0.2, np.inf), ((0.98, 0.0), 0.2, np.inf)):
        means = np.asarray(run(factor, shift), np.float64).reshape(40, draws).mean(axis=1)
        assert np.exp(-means).sum() < 1.02
        assert low < np.sum(masses * (means + np.log(masses))) < high
