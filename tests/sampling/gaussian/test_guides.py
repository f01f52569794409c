"""Guides of Gaussian samplers, compared with formulas for a linear network and with each other."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.sampling.gaussian import guides, solvers
from diffusion.sampling.gaussian.sampler import guided, network, sample_gaussian
from diffusion.schedules.gaussian import ScaledLinear
from tests.weights import keys_of

PATH = solvers.leading(ScaledLinear(), 4)
GRID = solvers.gaussian_grid(PATH, solvers.ddim(1.0), solvers.every(4, 2))
X = jnp.array([[0.3, -1.0], [0.7, 0.2]])


def row(step):
    return jax.tree.map(lambda column: column[step], GRID)


def linear(x, row, cond):
    """Return a clean estimate that is linear in the state and in the conditioning."""
    return 0.5 * x + cond, cond


def test_classifier_free_guidance_extrapolates():
    cond, null = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([0.5, 0.5])
    predict = guides.classifier_free(null, 3.0)(linear)
    clean, carry = predict(X, row(0), cond)
    unconditional = 0.5 * X + 0.5
    np.testing.assert_allclose(clean, unconditional + 3 * (0.5 * X + cond - unconditional), rtol=1e-6)
    np.testing.assert_array_equal(carry, cond)
    np.testing.assert_allclose(guides.classifier_free(null, 1.0)(linear)(X, row(0), cond)[0], 0.5 * X + cond, rtol=1e-6)


def test_guidance_of_the_clean_estimate_is_guidance_of_the_noise():
    process = GaussianDiffusion(ScaledLinear(), "epsilon")

    def denoiser(params, x, time, cond):
        return jnp.tanh(x + cond) * params

    cond, null, now = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([0.1, -0.1]), row(1)
    predict = guided(network(denoiser, process, 0.7), (guides.classifier_free(null, 4.0),))
    conditional, unconditional = 0.7 * jnp.tanh(X + cond), 0.7 * jnp.tanh(X + null[None])
    noise = unconditional + 4.0 * (conditional - unconditional)
    expected = (X - now.sigma * noise) / now.alpha
    np.testing.assert_allclose(predict(X, now, cond)[0], expected, rtol=1e-4)


def test_reward_gradient_passes_through_the_network():
    """With r(x_0) = a . x_0 and x_0 = x / 2 + e the gradient is a / 2 for every state."""
    slope = jnp.array([2.0, -1.0])
    predict = guides.reward_gradient(lambda clean: clean @ slope, 1.5)(linear)
    cond, now = jnp.zeros((2, 2)), row(0)
    expected = 0.5 * X + 1.5 * now.sigma**2 / now.alpha * slope[None] / 2
    np.testing.assert_allclose(predict(X, now, cond)[0], expected, rtol=1e-5)
    np.testing.assert_array_equal(predict(X, row(1), cond)[0], linear(X, row(1), cond)[0])


def test_conditioning_ascends_by_unit_steps_and_keeps_its_value():
    slope = jnp.array([3.0, 4.0])
    predict = guides.condition_ascent(lambda clean: clean @ slope, 0.1)(linear)
    cond = jnp.zeros((2, 2))
    clean, after = predict(X, row(0), cond)
    np.testing.assert_allclose(after, [[0.06, 0.08]] * 2, rtol=1e-5)
    np.testing.assert_allclose(clean, 0.5 * X + after, rtol=1e-6)
    np.testing.assert_array_equal(predict(X, row(1), after)[1], after)
    np.testing.assert_allclose(predict(X, row(2), after)[1], [[0.12, 0.16]] * 2, rtol=1e-5)

    # Without a gradient it does not change.
    predict = guides.condition_ascent(lambda clean: jnp.zeros(len(clean)), 0.1)(linear)
    np.testing.assert_array_equal(predict(X, row(0), jnp.ones((2, 2)))[1], jnp.ones((2, 2)))


def test_clamping_moves_to_the_nearest_point():
    predict = guides.clamp(jnp.round)(linear)
    np.testing.assert_array_equal(predict(X, row(0), jnp.zeros((2, 2)))[0], jnp.round(0.5 * X))
    np.testing.assert_array_equal(predict(X, row(1), jnp.zeros((2, 2)))[0], 0.5 * X)


def test_zero_scale_is_unguided_sampling():
    cond = jnp.ones((2, 2))

    def sample(*chain):
        return sample_gaussian(guided(linear, chain), keys_of(2), (2,), GRID, cond)[0]

    plain = sample()
    np.testing.assert_array_equal(sample(guides.reward_gradient(lambda clean: clean.sum(axis=1), 0.0)), plain)
    np.testing.assert_array_equal(sample(guides.condition_ascent(lambda clean: clean.sum(axis=1), 0.0)), plain)
    assert not np.allclose(sample(guides.reward_gradient(lambda clean: clean.sum(axis=1), 1.0)), plain)
