"""LiDAR and FK steering of uniform-state diffusion: sums, symmetries, and the tilted law of a small language."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.oracles.enumerable import Enumerable, random_language
from diffusion.oracles.uniform import uniform_posterior
from diffusion.processes.uniform import UniformDiffusion
from diffusion.sampling.ancestral import AncestralSampler, equal_steps
from diffusion.sampling.gaussian.steering import Steering
from diffusion.sampling.uniform_lidar import KERNELS, Lookahead, lookahead_guide
from diffusion.schedules.masking import Linear
from tests.checks import optimized, refused
from tests.languages import denoiser_of, distance
from tests.sampling.masked.exact import preceded
from tests.weights import keys_of

VOCABULARY, LENGTH, SIZE, COPIES = 3, 3, 4096, 256
PROCESS = UniformDiffusion(VOCABULARY, Linear())
STRENGTH = 1.5


def quantized(language):
    """The nearest language whose probabilities are multiples of 1 / COPIES, and that many copies of its sequences."""
    counts = np.floor(language.table * COPIES).astype(int)
    counts[np.argsort(counts - language.table * COPIES)[: COPIES - counts.sum()]] += 1
    return Enumerable(counts / COPIES, VOCABULARY, LENGTH), np.repeat(language.sequences, counts, axis=0)


LANGUAGE, SEQUENCES = quantized(random_language(0, VOCABULARY, LENGTH))
VALUES = np.random.default_rng(1).uniform(0, 2, VOCABULARY**LENGTH)
TILTED = LANGUAGE.table * np.exp(STRENGTH * VALUES)
TILTED = Enumerable(TILTED / TILTED.sum(), VOCABULARY, LENGTH)
FLOOR, UNTILTED = TILTED.total_variation_floor(SIZE), distance(LANGUAGE, TILTED)
DENOISER = denoiser_of(uniform_posterior(LANGUAGE, PROCESS))


def reward(tokens, carry=None):
    return jnp.asarray(VALUES, jnp.float32)[tokens @ VOCABULARY ** jnp.arange(LENGTH)[::-1]]


EXACT = Lookahead(jnp.asarray(SEQUENCES), reward(jnp.asarray(SEQUENCES)))


def blank(keys):
    return jnp.full((len(keys), LENGTH), VOCABULARY, jnp.int32)


@cache
def compiled(kernel):
    """Return a sampler guided with a kernel, or plain for None, as a function of keys, rows and guide's inputs."""

    def sample(keys, rows, lookahead, strength, scale):
        guide = kernel and lookahead_guide(PROCESS, lookahead, strength, scale, kernel)
        return AncestralSampler(DENOISER, PROCESS, guide=guide)(None, keys, blank(keys), rows).tokens

    return optimized(sample)


def rows_of(steps):
    """Return the rows of one of two programs, of 8 and of 64 steps."""
    return preceded(equal_steps(Linear(), steps), 8 if steps <= 8 else 64)


def samples_of(kernel, steps=8, lookahead=EXACT, strength=STRENGTH, scale=1.0):
    inputs = jnp.float32(strength), jnp.float32(scale)
    return np.asarray(compiled(kernel)(keys_of(SIZE), rows_of(steps), lookahead, *inputs))


@pytest.mark.parametrize("levels", [(1e-5, 0.0), (0.1, 1e-4), (0.5, 0.3), (1.0, 0.9)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_guides_are_the_sums_over_lookahead_samples(kernel, levels):
    """Against every factor of every sample at every position and value in float64."""
    rng = np.random.default_rng(0)
    size, length, particles, classes = 5, 4, 40, 6
    samples, rewards = rng.integers(0, classes, (particles, length)), rng.normal(size=particles)
    state, plain = rng.integers(0, classes, (size, length)), np.log(rng.dirichlet(np.ones(classes), (size, length)))
    same = samples[..., None] == np.arange(classes)  # [n, L, K]
    before, after = ((1 - level) * same + level / classes for level in (levels[0], max(levels[1], 1e-12)))
    expected = plain.copy()
    for example, position in np.ndindex(size, length):
        seen = before[:, np.arange(length), state[example]]
        weights = np.prod(np.delete(seen, position, axis=1), axis=1) if kernel == "sequence" else np.ones(particles)
        both = [(weights * tilt) @ after[:, position] for tilt in (np.exp(STRENGTH * rewards), np.ones(particles))]
        expected[example, position] += 0.7 * (np.log(both[0]) - np.log(both[1]))
    process = UniformDiffusion(classes, Linear())
    lookahead = Lookahead(jnp.asarray(samples, jnp.int32), jnp.asarray(rewards, jnp.float32))
    guide = optimized(lookahead_guide(process, lookahead, STRENGTH, 0.7, kernel))
    result = guide(jnp.asarray(state, jnp.int32), jnp.asarray(plain, jnp.float32), *map(jnp.float32, levels))
    np.testing.assert_allclose(jax.nn.softmax(result), jax.nn.softmax(jnp.asarray(expected)), atol=2e-5)


@optimized
def posteriors(state, level, after):
    """Return log p of the next states under the exact denoisers of the language and of the tilted one."""
    predictions = (uniform_posterior(language, PROCESS)(state, level) for language in (LANGUAGE, TILTED))
    return [PROCESS.posterior(logits, state, level, after) for logits in predictions]


exact_guide = optimized(lookahead_guide(PROCESS, EXACT, STRENGTH, 1.0, "sequence"))


@pytest.mark.parametrize("levels", [(1.0, 0.6), (0.6, 0.55), (0.3, 0.05), (0.05, 0.0)])
def test_by_sequence_a_guided_step_is_that_of_the_tilted_model(levels):
    """The law of every position under the exact denoiser of the tilted language, for all states."""
    size = len(LANGUAGE.sequences)
    time, after = jnp.full(size, levels[0]), jnp.full(size, levels[1])
    state = jnp.asarray(LANGUAGE.sequences)
    plain, expected = posteriors(state, time, after)
    result = jax.nn.softmax(exact_guide(state, plain, *map(jnp.float32, levels)))
    np.testing.assert_allclose(result, jnp.exp(expected), atol=1e-5)
    assert np.abs(result - jnp.exp(plain)).max() > 0.02


def test_with_samples_of_the_model_the_limit_is_the_tilted_law():
    """By sequence, as the number of steps grows; without guidance the distance is that of the two laws."""
    variations = [TILTED.total_variation(samples_of("sequence", steps)) for steps in (1, 8, 64)]
    assert TILTED.total_variation(samples_of(None, 64)) == pytest.approx(UNTILTED, abs=2 * FLOOR)
    assert UNTILTED > variations[0] > 1.5 * variations[1] > 2 * variations[2]
    assert variations[2] < 1.6 * FLOOR


def test_by_token_the_marginals_are_tilted_and_the_law_is_not():
    """One step from noise draws each position from the marginals of the tilted law, whatever the kernel."""
    marginals = [TILTED.table @ (TILTED.sequences == value) for value in range(VOCABULARY)]
    for kernel in KERNELS:
        tokens = samples_of(kernel, 1)
        np.testing.assert_allclose([(tokens == value).mean(0) for value in range(VOCABULARY)], marginals, atol=0.03)
    assert 5 * FLOOR < TILTED.total_variation(samples_of("token", 64)) < 0.8 * UNTILTED


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_information_samples_are_those_of_the_plain_sampler_bit_for_bit(kernel):
    plain, one = samples_of(None), Lookahead(EXACT.samples[:1], EXACT.rewards[:1])
    for options in (
        {"strength": 0.0},
        {"scale": 0.0},
        {"lookahead": one},
        {"lookahead": EXACT._replace(rewards=jnp.full(COPIES, 0.7))},
    ):
        np.testing.assert_array_equal(samples_of(kernel, **options), plain)
    assert not np.array_equal(samples_of(kernel), plain)


def test_an_example_does_not_depend_on_its_batch_and_nothing_leaves_the_device():
    inputs = jax.device_put((keys_of(64), rows_of(8), EXACT, jnp.float32(STRENGTH), jnp.float32(1)))
    whole = compiled("sequence")(*inputs)
    np.testing.assert_array_equal(whole, samples_of("sequence")[:64])
    with jax.transfer_guard("disallow"):
        again = compiled("sequence")(*inputs)
    np.testing.assert_array_equal(again, whole)


def test_a_large_strength_has_no_overflow():
    """It picks the sequence of the largest reward."""
    best = np.asarray(EXACT.samples[jnp.argmax(EXACT.rewards)])
    assert (samples_of("sequence", 64, strength=5000.0) == best).all(axis=1).mean() > 0.9


def test_an_unknown_kernel_is_refused():
    with refused(r"sample\.uniform\.lookahead\.kernel: unknown 'word'; known: token, sequence"):
        lookahead_guide(PROCESS, EXACT, 1.0, 1.0, "word")


@cache
def steered(particles):
    """Return the program of samples by steered particles, as a function of the strength."""

    def sample(keys, rows, strength):
        resample = Steering(reward, particles, strength)
        return AncestralSampler(DENOISER, PROCESS, resample=resample)(None, keys, blank(keys), rows).tokens

    run = optimized(sample)
    return lambda strength=STRENGTH: np.asarray(run(keys_of(SIZE), rows_of(64), strength))


def test_particles_approach_the_tilted_law():
    """With more of them per group; one is the plain sampler, bit for bit."""
    np.testing.assert_array_equal(steered(1)(), samples_of(None, 64))
    few, many = (TILTED.total_variation(steered(particles)()) for particles in (2, 64))
    assert UNTILTED > 1.2 * few > 2 * many


def test_a_large_strength_leaves_copies_of_good_particles():
    """The last resampling reads the finished samples: nearly half of the groups of two end as copies of one."""
    tokens = steered(2)(10.0)
    pairs = tokens.reshape(-1, 2, LENGTH)
    assert (pairs[:, 0] == pairs[:, 1]).all(axis=1).mean() > 0.4
    good, plain = (float(reward(jnp.asarray(each)).mean()) for each in (tokens, samples_of(None, 64)))
    assert good > plain + 0.1
