"""Guides away from lookahead samples of low reward: worked examples, limits, and symmetries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.sampling.gaussian import solvers
from diffusion.sampling.gaussian.lidar import Lookahead
from diffusion.sampling.gaussian.negatives import safe_denoiser, sparse_repellency, worst
from diffusion.sampling.gaussian.sampler import guided, sample_gaussian
from diffusion.schedules.gaussian import ScaledLinear
from tests.checks import refused
from tests.weights import keys_of

# Guided in steps 0 and 2 of four.
GRID = solvers.gaussian_grid(solvers.leading(ScaledLinear(), 4), solvers.ddim(1.0), solvers.every(4, 2))
ROWS = [jax.tree.map(lambda column, step=step: column[step], GRID) for step in range(4)]
# Two prompts with two samples each, in the plane.
TWO = Lookahead(jnp.array([[[0.0, 0.0], [4.0, 0.0]], [[1.0, 1.0], [1.0, -3.0]]]), jnp.zeros((2, 2)))
X = jnp.array([[[0.4], [0.8]], [[-1.0], [0.2]]])  # one image of two pixels per prompt


def at(clean):
    """Return a prediction of these clean data, which passes its carry on."""
    return lambda x, row, carry: (clean, carry + 1)


def test_the_lowest_rewards_are_chosen_for_each_prompt():
    samples = jnp.arange(12.0).reshape(2, 3, 2)
    chosen = worst(Lookahead(samples, jnp.array([[0.5, -1.0, 0.2], [3.0, 4.0, 2.0]])), 2)
    np.testing.assert_array_equal(chosen.rewards, np.float32([[-1.0, 0.2], [2.0, 3.0]]))
    np.testing.assert_array_equal(chosen.samples, [samples[0, [1, 2]], samples[1, [2, 0]]])
    single = worst(Lookahead(samples[0], jnp.array([0.5, -1.0, 0.2])), 1)
    np.testing.assert_array_equal(single.samples, samples[0, 1:2])
    for count in (0, 4):
        with refused(r"negatives.count: must lie in 1 .. 3"):
            worst(Lookahead(samples, jnp.zeros((2, 3))), count)


def test_repulsion_by_hand():
    """x_0 = (3, 4) is 5 from (0, 0) and sqrt(17) from (4, 0), and a radius of 10 pushes it by 10 - distance."""
    clean = jnp.array([[[3.0], [4.0]], [[1.0], [0.0]]])
    moved, carry = sparse_repellency(TWO, 0.5, 10.0)(at(clean))(X, ROWS[0], 7)
    first = np.array([3.0, 4.0]) + 0.5 * (5 * np.array([3, 4]) / 5 + (10 - 17**0.5) * np.array([-1, 4]) / 17**0.5)
    # From (1, 1), one unit away, by 9 downward, and from (1, -3), three units away, by 7 upward.
    second = np.array([1.0, 0.0 + 0.5 * (-9 + 7)])
    np.testing.assert_allclose(moved[..., 0], [first, second], rtol=1e-6)
    assert carry == 8
    np.testing.assert_array_equal(sparse_repellency(TWO, 0.5, 10.0)(at(clean))(X, ROWS[1], 0)[0], clean)


def test_the_safe_denoiser_by_hand():
    """Weights of the two samples from the distances of x, not of x_0, at the level of the step.

    The first case is example E1 of the weights of LiDAR's guide, whose mean is -0.291339175 + 0.708660825.
    """
    known = ROWS[0]._replace(alpha=jnp.float32(0.8), sigma=jnp.float32(0.6))
    example = Lookahead(jnp.array([[[-1.0], [1.0]]]), jnp.zeros((1, 2)))
    moved, _ = safe_denoiser(example, 2.0, 0.05)(at(jnp.array([[0.5]])))(jnp.array([[0.2]]), known, 0)
    np.testing.assert_allclose(moved, [[0.5 + 2.0 * 0.05 * (0.5 - 0.41732165)]], rtol=1e-6)
    clean, row = jnp.array([[[3.0], [4.0]], [[1.0], [0.0]]]), ROWS[0]
    moved, _ = safe_denoiser(TWO, 2.0, 0.05)(at(clean))(X, row, 0)
    alpha, sigma = float(row.alpha), float(row.sigma)
    for prompt in range(2):
        samples = np.asarray(TWO.samples[prompt], np.float64)
        distances = ((np.asarray(X[prompt, :, 0], np.float64) - alpha * samples) ** 2).sum(axis=1)
        weights = np.exp(-distances / (2 * sigma**2))
        mean = weights @ samples / weights.sum()
        assert weights.min() / weights.sum() > 0.01
        before = np.asarray(clean[prompt, :, 0], np.float64)
        np.testing.assert_allclose(moved[prompt, :, 0], before + 2.0 * 0.05 * (before - mean), rtol=1e-5)
    np.testing.assert_array_equal(safe_denoiser(TWO, 2.0, 0.05)(at(clean))(X, ROWS[1], 0)[0], clean)


def test_repulsion_is_local_and_finite():
    """Samples at the radius or farther change no bit, and a sample at x_0 itself, or next to it, gives no NaN."""
    clean = jnp.array([[[3.0], [4.0]], [[1.0], [0.0]]])
    np.testing.assert_array_equal(sparse_repellency(TWO, 1.0, 1.0)(at(clean))(X, ROWS[0], 0)[0], clean)
    on_top = jnp.array([[[0.0], [0.0]], [[1.0], [1.0 + 1e-6]]])
    moved, _ = sparse_repellency(TWO, 1.0, 3.5)(at(on_top))(X, ROWS[0], 0)
    np.testing.assert_array_equal(moved[0], on_top[0])
    np.testing.assert_allclose(moved[1, :, 0], [1.0, 4.5], rtol=1e-6)
    gradient = jax.grad(lambda clean: jnp.sum(sparse_repellency(TWO, 1.0, 3.5)(at(clean))(X, ROWS[0], 0)[0]))(on_top)
    assert np.isfinite(gradient).all()


def linear(x, row, carry):
    return 0.3 * x, carry


GUIDES = {
    "safe": lambda lookahead, scale: safe_denoiser(lookahead, scale, 0.5),
    "repellency": lambda lookahead, scale: sparse_repellency(lookahead, scale, 2.0),
}


@pytest.mark.parametrize("name", GUIDES)
def test_a_scale_of_zero_changes_no_bit_and_prompts_do_not_mix(name):
    """Bitwise in the whole sampler, as for the guide of LiDAR."""

    @jax.jit
    def sample(keys, lookahead, scale):
        return sample_gaussian(guided(linear, (GUIDES[name](lookahead, scale),)), keys, (2, 1), GRID)[0]

    keys = keys_of(6)
    plain = jax.jit(lambda keys: sample_gaussian(linear, keys, (2, 1), GRID)[0])(keys)
    np.testing.assert_array_equal(sample(keys, TWO, 0.0), plain)
    base = sample(keys, TWO, 1.0)
    assert np.abs(base - plain).max() > 0.05
    other = sample(keys, TWO._replace(samples=TWO.samples.at[1].add(1.0)), 1.0)
    np.testing.assert_array_equal(other[:3], base[:3])
    assert np.abs(other[3:] - base[3:]).max() > 0.05
