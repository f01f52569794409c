"""Model-aware noise scaling: confidence, maps, and the controls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.embedding import EmbeddingCodec
from diffusion.objectives.noise_scaling import NoiseScaling, confidence, rescale_time, shift_time, shuffle_within
from diffusion.schedules.gaussian import CosineSignal, ScaledLinear, SigmaIsTime
from tests.weights import keys_of

CODEC = EmbeddingCodec(lambda params: params, 2)
TABLE = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
SIZE = 250


def times(time, certain, keys=None, mask=None, schedule=SigmaIsTime(), **fields):  # noqa: B008
    time, certain = jnp.asarray(time, jnp.float32), jnp.asarray(certain, jnp.float32)
    mask = jnp.ones(time.shape, bool) if mask is None else mask
    keys = keys_of(len(time)) if keys is None else keys
    return np.asarray(NoiseScaling(**fields).times(keys, schedule, time, certain, mask))


def test_worked_example_of_confidence():
    estimates = jnp.array([[[2**0.5, 0.0], [0.0, 0.0]]])
    tokens = jnp.zeros((1, 2), jnp.int32)
    np.testing.assert_allclose(confidence(CODEC, TABLE, estimates, tokens), [[0.982013790, 0.5]], rtol=1e-6)


def test_worked_examples_of_the_shift():
    moved = times([[0.5, 0.5, 0.5]], [[0.0, 0.8, 1.0]], map="shift", strength=0.5)
    np.testing.assert_allclose(moved, [[0.5, 0.7, 0.75]], rtol=1e-6)
    assert times([[0.5]], [[1.0]], map="shift", strength=1.0) == 1.0


def test_times_of_scaled_noise():
    """For sigma = t they are s t / sqrt(1 - t^2 + s^2 t^2), and in general alpha / sigma is divided by s."""
    time, factor = jnp.array([[0.5, 0.5, 0.1, 0.3]]), jnp.array([[4.0, 2.0, 4.0, 1.0]])
    moved = rescale_time(SigmaIsTime(), time, factor)
    np.testing.assert_allclose(moved, [[0.917662935, 0.755928946, 0.373001923, 0.3]], rtol=1e-5)
    assert float(moved[0, 3]) == float(time[0, 3])
    for schedule in (CosineSignal(), ScaledLinear()):
        moved, signal = rescale_time(schedule, time, factor), schedule.signal(time)
        expected = signal / (factor**2 - (factor**2 - 1) * signal)
        np.testing.assert_allclose(schedule.signal(moved), expected, atol=1e-5)
    # The same with the map: the factor is 4 for confidence 1.
    np.testing.assert_allclose(times([[0.5]], [[1.0]], map="scale", largest=4.0), 0.917662935, rtol=1e-5)


@pytest.mark.parametrize("map", ["shift", "scale"])
def test_noise_increases_with_confidence(map):
    rng = np.random.default_rng(0)
    time, one, other = rng.uniform(0, 1, (3, 1000, 1))
    for strength, largest in ((0.0, 1.0), (0.3, 1.7), (0.99, 9.0)):
        fields = dict(map=map, strength=strength, largest=largest)
        low, high = (times(time, pick(one, other), **fields) for pick in (np.minimum, np.maximum))
        assert (low <= high + 1e-6).all()
        assert (low >= time.astype(np.float32)).all() and (high <= 1).all()


def test_maps_that_are_off_change_no_bit():
    rng = np.random.default_rng(1)
    time, confidence = rng.uniform(0, 1, (2, SIZE, 3)).astype(np.float32)
    for fields in (
        dict(map="off"),
        dict(map="shift", strength=0.0),
        dict(map="random", strength=0.0),
        dict(map="scale", largest=1.0),
        dict(map="shift", off_probability=1.0),
    ):
        np.testing.assert_array_equal(times(time, confidence, **fields), time)


def test_a_fraction_of_the_examples_keeps_one_time():
    time, confidence = np.full((SIZE, 2), 0.4, np.float32), np.full((SIZE, 2), 1.0)
    moved = times(time, confidence, map="shift", off_probability=0.25)
    assert (moved[:, 0] == time[:, 0]).mean() == pytest.approx(0.25, abs=0.08)
    np.testing.assert_array_equal(moved[:, 0], moved[:, 1])


def test_times_have_no_gradient():
    def summed(confidence):
        scaling = NoiseScaling("shift")
        mask = jnp.ones((2, 2), bool)
        return jnp.sum(scaling.times(keys_of(2), SigmaIsTime(), jnp.full((2, 2), 0.5), confidence, mask))

    np.testing.assert_array_equal(jax.grad(summed)(jnp.full((2, 2), 0.3)), 0)


def test_controls_do_not_depend_on_the_token():
    confidence = np.linspace(0, 1, SIZE * 4).reshape(SIZE, 4)
    time = np.full((SIZE, 4), 0.2, np.float32)
    drawn = times(time, confidence, map="random", strength=0.5)
    np.testing.assert_array_equal(drawn, times(time, 0 * confidence, map="random", strength=0.5))
    assert drawn.mean() == pytest.approx(0.2 + 0.5 * 0.5 * 0.8, abs=0.02)
    mask = jnp.arange(4)[None] < jnp.where(jnp.arange(SIZE) % 2 == 0, 3, 4)[:, None]
    mixed = np.asarray(shuffle_within(keys_of(SIZE), jnp.asarray(confidence, jnp.float32), mask))
    # The confidences of a sentence's tokens are permuted.
    for row in range(8):
        valid = np.asarray(mask[row])
        np.testing.assert_array_equal(np.sort(mixed[row][valid]), confidence[row][valid].astype(np.float32))
    orders = {tuple(np.argsort(row[:3])) for row in mixed[::2]}
    assert len(orders) == 6
    np.testing.assert_allclose(shift_time(jnp.full((1, 1), 0.2), jnp.zeros((1, 1)), 0.5), 0.2)


def test_invalid_options_are_rejected():
    for fields, message in (
        (dict(map="table"), "mans.map: unknown 'table'; known: off, shift, scale, random, shuffled"),
        (dict(strength=1.5), "mans.strength: must lie in"),
        (dict(largest=0.5), "mans.largest: the scale of noise must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            NoiseScaling(**fields)
