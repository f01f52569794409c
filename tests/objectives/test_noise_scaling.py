"""Model-aware noise scaling: confidence, maps, and the controls."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.embedding import EmbeddingCodec
from diffusion.objectives.noise_scaling import NoiseScaling, confidence, rescale_time, shuffle_within
from diffusion.schedules.gaussian import CosineSignal, ScaledLinear, SigmaIsTime
from tests.checks import refused
from tests.weights import keys_of

CODEC = EmbeddingCodec(lambda params: params, 2)
TABLE = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
SIZE = 1000
SHAPE = (SIZE, 4)
KEYS, ALL = keys_of(SIZE), jnp.ones(SHAPE, bool)
TIME, CONFIDENCE, OTHER = np.random.default_rng(0).uniform(0, 1, (3, *SHAPE)).astype(np.float32)


def times(time, certain, **fields):
    time, certain = (jnp.broadcast_to(jnp.asarray(array, jnp.float32), SHAPE) for array in (time, certain))
    return np.asarray(NoiseScaling(**fields).times(KEYS, SigmaIsTime(), time, certain, ALL))


def test_worked_example_of_confidence():
    estimates = jnp.array([[[2**0.5, 0.0], [0.0, 0.0]]])
    tokens = jnp.zeros((1, 2), jnp.int32)
    np.testing.assert_allclose(confidence(CODEC, TABLE, estimates, tokens), [[0.982013790, 0.5]], rtol=1e-6)


def test_worked_examples_of_the_shift():
    moved = times(0.5, [0.0, 0.8, 1.0, 1.0], map="shift", strength=0.5)
    np.testing.assert_allclose(moved[0], [0.5, 0.7, 0.75, 0.75], rtol=1e-6)
    assert (times(0.5, 1.0, map="shift", strength=1.0) == 1.0).all()


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
    np.testing.assert_allclose(times(0.5, 1.0, map="scale", largest=4.0), 0.917662935, rtol=1e-5)


@pytest.mark.parametrize("map", ["shift", "scale"])
def test_noise_increases_with_confidence(map):
    for strength, largest in ((0.3, 1.7), (0.99, 9.0)):
        fields = dict(map=map, strength=strength, largest=largest)
        low, high = (times(TIME, pick(CONFIDENCE, OTHER), **fields) for pick in (np.minimum, np.maximum))
        assert (low <= high + 1e-6).all() and (low >= TIME).all() and (high <= 1).all()


@pytest.mark.parametrize(
    "fields",
    [
        dict(map="off"),
        dict(map="shift", strength=0.0),
        dict(map="random", strength=0.0),
        dict(map="scale", largest=1.0),
        dict(map="shift", off_probability=1.0),
    ],
    ids=str,
)
def test_maps_that_are_off_change_no_bit(fields):
    np.testing.assert_array_equal(times(TIME, CONFIDENCE, **fields), TIME)


def test_a_fraction_of_the_examples_keeps_one_time():
    moved = times(0.4, 1.0, map="shift", off_probability=0.25)
    assert (moved[:, 0] == np.float32(0.4)).mean() == pytest.approx(0.25, abs=0.04)
    np.testing.assert_array_equal(moved[:, :1] + 0 * moved, moved)


def test_controls_do_not_depend_on_the_token():
    drawn = times(0.2, CONFIDENCE, map="random", strength=0.5)
    np.testing.assert_array_equal(drawn, times(0.2, 0 * CONFIDENCE, map="random", strength=0.5))
    assert drawn.mean() == pytest.approx(0.2 + 0.5 * 0.5 * 0.8, abs=0.01)
    mask = np.arange(4)[None] < np.where(np.arange(SIZE) % 2 == 0, 3, 4)[:, None]
    ordered = np.sort(CONFIDENCE)
    mixed = np.asarray(shuffle_within(KEYS, jnp.asarray(ordered), jnp.asarray(mask)))
    # The confidences of a sentence's tokens are permuted, in all orders.
    np.testing.assert_array_equal(np.sort(np.where(mask, mixed, 2)), np.where(mask, ordered, 2))
    assert len(np.unique(np.argsort(mixed[::2, :3]), axis=0)) == 6
    shuffled = times(0.2, CONFIDENCE, map="shuffled", strength=0.5)
    np.testing.assert_allclose(np.sort(shuffled), 0.2 + 0.4 * np.sort(CONFIDENCE), rtol=1e-5)
    assert (shuffled != times(0.2, CONFIDENCE, map="shift", strength=0.5)).any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(map="table"), "mans.map: unknown 'table'; known: off, shift, scale, random, shuffled"),
        (dict(strength=1.5), "mans.strength: must lie in"),
        (dict(largest=0.5), "mans.largest: the scale of noise must be at least 1"),
    ],
)
def test_invalid_options_are_rejected(fields, message):
    with refused(message):
        NoiseScaling(**fields)
