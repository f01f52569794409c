"""Guides of Gaussian samplers, compared with formulas for a linear network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.sd.unet import AddedConditioning, TextConditioning
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.sampling.gaussian import guides, solvers
from diffusion.sampling.gaussian.sampler import guided, network
from diffusion.schedules.gaussian import ScaledLinear

GRID = solvers.gaussian_grid(solvers.leading(ScaledLinear(), 4), solvers.ddim(1.0), solvers.every(4, 2))
ROWS = [jax.tree.map(lambda column, step=step: column[step], GRID) for step in range(3)]
X, ZERO = jnp.array([[0.3, -1.0], [0.7, 0.2]]), jnp.zeros((2, 2))


def linear(x, row, cond):
    """Return a clean estimate that is linear in the state and in the conditioning."""
    return 0.5 * x + cond, cond


@pytest.mark.parametrize("apart", [False, True])
def test_guidance_of_the_clean_estimate_is_guidance_of_the_noise(apart):
    process, cond, null = GaussianDiffusion(ScaledLinear(), "epsilon"), X + 1, jnp.array([0.1, -0.1])
    net = network(lambda params, x, time, cond: jnp.tanh(x + cond) * params, process, 0.7)
    predict = jax.jit(guided(net, (guides.classifier_free(null, 4.0, apart),)))
    conditional, unconditional = 0.7 * np.tanh(X + cond), 0.7 * np.tanh(X + null[None])
    noise = unconditional + 4.0 * (conditional - unconditional)
    clean, carry = predict(X, ROWS[1], cond)
    np.testing.assert_allclose(clean, (X - ROWS[1].sigma * noise) / ROWS[1].alpha, rtol=1e-4)
    np.testing.assert_array_equal(carry, cond)


def test_reward_gradient_passes_through_the_network():
    """With r(x_0) = a . x_0 and x_0 = x / 2 + e the gradient is a / 2 for every state."""
    slope = jnp.array([2.0, -1.0])
    predict = jax.jit(guides.reward_gradient(lambda clean: clean @ slope, 1.5)(linear))
    expected = 0.5 * X + 1.5 * ROWS[0].sigma ** 2 / ROWS[0].alpha * slope[None] / 2
    np.testing.assert_allclose(predict(X, ROWS[0], ZERO)[0], expected, rtol=1e-5)
    np.testing.assert_array_equal(predict(X, ROWS[1], ZERO)[0], 0.5 * X)


def test_conditioning_ascends_by_unit_steps_and_keeps_its_value():
    """Without a gradient, as for the second example, the context does not change, and other parts never do."""
    slopes, added = jnp.array([[3.0, 4.0], [0.0, 0.0]]), AddedConditioning(ZERO + 2, jnp.full((2, 6), 1024.0))

    def with_added(x, row, cond):
        return 0.5 * x + cond.context + cond.added.pooled, cond

    predict = jax.jit(guides.condition_ascent(lambda clean: jnp.sum(clean * slopes, axis=1), 0.1)(with_added))
    cond = TextConditioning(ZERO, added)
    for row, expected in zip(ROWS, [(0.06, 0.08), (0.06, 0.08), (0.12, 0.16)], strict=True):
        clean, cond = predict(X, row, cond)
        np.testing.assert_allclose(cond.context, [expected, (0, 0)], rtol=1e-5)
        np.testing.assert_allclose(clean, 0.5 * X + cond.context + 2, rtol=1e-6)
        jax.tree.map(np.testing.assert_array_equal, cond.added, added)


def test_clamping_acts_in_guided_steps_and_known_data_are_kept_in_all():
    given = jnp.array([[True, False], [False, False]])
    for row, clamped in ((ROWS[0], np.round(0.5 * X)), (ROWS[1], 0.5 * X)):
        np.testing.assert_array_equal(guides.clamp(jnp.round)(linear)(X, row, ZERO)[0], clamped)
        kept = guides.keep(ZERO + 9, given)(linear)(X, row, ZERO)[0]
        np.testing.assert_array_equal(kept, np.where(given, 9, 0.5 * X))
