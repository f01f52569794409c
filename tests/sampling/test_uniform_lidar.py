"""LiDAR and FK steering of uniform-state diffusion: sums, symmetries, and the tilted law of a small language."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.oracles.enumerable import Enumerable, random_language
from diffusion.oracles.uniform import uniform_posterior
from diffusion.processes.uniform import UniformDiffusion
from diffusion.rng import example_keys
from diffusion.sampling.ancestral import AncestralSampler, equal_steps
from diffusion.sampling.gaussian.steering import Steering
from diffusion.sampling.uniform_lidar import KERNELS, Lookahead, lookahead_guide
from diffusion.schedules.masking import Linear

VOCABULARY, LENGTH, SIZE, COPIES = 3, 3, 8192, 512
PROCESS = UniformDiffusion(VOCABULARY, Linear())
STRENGTH = 1.5


def quantized(language):
    """The nearest language whose probabilities are multiples of 1 / COPIES, and that many copies of its sequences."""
    counts = np.floor(language.table * COPIES).astype(int)
    counts[np.argsort(counts - language.table * COPIES)[: COPIES - counts.sum()]] += 1
    return Enumerable(counts / COPIES, VOCABULARY, LENGTH), np.repeat(language.sequences, counts, axis=0)


LANGUAGE, SEQUENCES = quantized(random_language(0, VOCABULARY, LENGTH))
VALUES = jnp.asarray(np.random.default_rng(1).uniform(0, 2, VOCABULARY**LENGTH), jnp.float32)
POWERS = VOCABULARY ** jnp.arange(LENGTH)[::-1]
TILTED = LANGUAGE.table * np.exp(STRENGTH * np.asarray(VALUES, np.float64))
TILTED = Enumerable(TILTED / TILTED.sum(), VOCABULARY, LENGTH)
FLOOR = TILTED.total_variation_floor(SIZE)


def reward(tokens, carry=None):
    return VALUES[tokens @ POWERS]


EXACT = Lookahead(jnp.asarray(SEQUENCES), reward(jnp.asarray(SEQUENCES)))
DENOISE = uniform_posterior(LANGUAGE, PROCESS)


def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
    return DENOISE(noisy, time)


@cache
def compiled(kernel):
    """Return a sampler guided with a kernel, or plain for None, as a function of keys, rows and guide's inputs."""

    def sample(keys, rows, lookahead, strength, scale):
        guide = kernel and lookahead_guide(PROCESS, lookahead, strength, scale, kernel)
        prompt = jnp.full((len(keys), LENGTH), VOCABULARY, jnp.int32)
        return AncestralSampler(denoiser, PROCESS, guide=guide)(None, keys, prompt, rows).tokens

    return jax.jit(sample)


def keys_of(size=SIZE, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(size))


def samples_of(kernel, steps=4, lookahead=EXACT, strength=STRENGTH, scale=1.0, keys=None):
    keys = keys_of() if keys is None else keys
    inputs = jnp.float32(strength), jnp.float32(scale)
    return np.asarray(compiled(kernel)(keys, equal_steps(Linear(), steps), lookahead, *inputs))


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
    guide = lookahead_guide(process, lookahead, STRENGTH, 0.7, kernel)
    result = guide(jnp.asarray(state, jnp.int32), jnp.asarray(plain, jnp.float32), *map(jnp.float32, levels))
    np.testing.assert_allclose(jax.nn.softmax(result), jax.nn.softmax(jnp.asarray(expected)), atol=2e-5)


@pytest.mark.parametrize("levels", [(1.0, 0.6), (0.6, 0.55), (0.3, 0.05), (0.05, 0.0)])
def test_by_sequence_a_guided_step_is_that_of_the_tilted_model(levels):
    """The law of every position under the exact denoiser of the tilted language, for all states."""
    size = len(LANGUAGE.sequences)
    time, after = jnp.full(size, levels[0]), jnp.full(size, levels[1])
    state = jnp.asarray(LANGUAGE.sequences)
    plain, expected = (
        PROCESS.posterior(uniform_posterior(language, PROCESS)(state, time), state, time, after)
        for language in (LANGUAGE, TILTED)
    )
    guide = lookahead_guide(PROCESS, EXACT, STRENGTH, 1.0, "sequence")
    result = jax.nn.softmax(guide(state, plain, *map(jnp.float32, levels)))
    np.testing.assert_allclose(result, jnp.exp(expected), atol=1e-5)
    assert np.abs(result - jnp.exp(plain)).max() > 0.02


def test_with_samples_of_the_model_the_limit_is_the_tilted_law():
    """By sequence, as the number of steps grows; without guidance the distance is that of the two laws."""
    untilted = 0.5 * np.abs(LANGUAGE.table - TILTED.table).sum()
    variations = [TILTED.total_variation(samples_of("sequence", steps)) for steps in (1, 8, 128)]
    assert TILTED.total_variation(samples_of(None, 128)) == pytest.approx(untilted, abs=2 * FLOOR)
    assert untilted > variations[0] > 1.5 * variations[1] > 3 * variations[2]
    assert variations[2] < 1.6 * FLOOR


def test_by_token_the_marginals_are_tilted_and_the_law_is_not():
    """One step from noise draws each position from the marginals of the tilted law, whatever the kernel."""
    marginals = [TILTED.table @ (TILTED.sequences == value) for value in range(VOCABULARY)]
    for kernel in KERNELS:
        tokens = samples_of(kernel, 1)
        np.testing.assert_allclose([(tokens == value).mean(0) for value in range(VOCABULARY)], marginals, atol=0.02)
    token = TILTED.total_variation(samples_of("token", 128))
    assert 10 * FLOOR < token < 0.5 * np.abs(LANGUAGE.table - TILTED.table).sum()


@pytest.mark.parametrize("case", ["no strength", "no scale", "one sample", "equal rewards"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_without_information_samples_are_those_of_the_plain_sampler_bit_for_bit(kernel, case):
    lookahead = {
        "one sample": Lookahead(EXACT.samples[:1], EXACT.rewards[:1]),
        "equal rewards": EXACT._replace(rewards=jnp.full(COPIES, 0.7)),
    }.get(case, EXACT)
    strength, scale = 0.0 if case == "no strength" else STRENGTH, 0.0 if case == "no scale" else 1.0
    guided = samples_of(kernel, 4, lookahead, strength, scale)
    np.testing.assert_array_equal(guided, samples_of(None, 4))
    assert not np.array_equal(guided, samples_of(kernel, 4))


@pytest.mark.parametrize("kernel", KERNELS)
def test_symmetries(kernel):
    """Order, a constant added to all rewards, and copies of all samples change nothing beyond rounding."""
    base = samples_of(kernel, keys=keys_of(512))
    order = np.random.default_rng(0).permutation(COPIES)
    for lookahead in (
        Lookahead(EXACT.samples[order], EXACT.rewards[order]),
        EXACT._replace(rewards=EXACT.rewards + 5),
        Lookahead(jnp.tile(EXACT.samples, (2, 1)), jnp.tile(EXACT.rewards, 2)),
    ):
        assert (samples_of(kernel, lookahead=lookahead, keys=keys_of(512)) == base).mean() > 0.99


def test_an_example_does_not_depend_on_its_batch_and_nothing_leaves_the_device():
    keys, rows = keys_of(64), equal_steps(Linear(), 4)
    inputs = EXACT, jnp.float32(STRENGTH), jnp.float32(1)
    whole = compiled("sequence")(keys, rows, *inputs)
    np.testing.assert_array_equal(compiled("sequence")(keys[:7], rows, *inputs), whole[:7])
    with jax.transfer_guard("disallow"):
        again = compiled("sequence")(keys, rows, *inputs)
    np.testing.assert_array_equal(again, whole)


def test_a_large_strength_has_no_overflow():
    """It picks the sequence of the largest reward."""
    best = np.asarray(EXACT.samples[jnp.argmax(EXACT.rewards)])
    assert (samples_of("sequence", 64, strength=5000.0, keys=keys_of(256)) == best).all(axis=1).mean() > 0.9


def test_an_unknown_kernel_is_refused():
    with pytest.raises(ValueError, match=r"sample\.uniform\.lookahead\.kernel: unknown 'word'; known: token, sequence"):
        lookahead_guide(PROCESS, EXACT, 1.0, 1.0, "word")


@cache
def steered(particles, strength=STRENGTH):
    resample = Steering(reward, particles, strength)
    sampler = AncestralSampler(denoiser, PROCESS, resample=resample)
    prompt = jnp.full((SIZE, LENGTH), VOCABULARY, jnp.int32)
    return np.asarray(jax.jit(lambda keys, rows: sampler(None, keys, prompt, rows).tokens)(keys_of(), ROWS))


ROWS = equal_steps(Linear(), 64)


def test_particles_approach_the_tilted_law():
    """With more of them per group; one is the plain sampler, bit for bit."""
    np.testing.assert_array_equal(steered(1), samples_of(None, 64))
    few, many = (TILTED.total_variation(steered(particles)) for particles in (2, 64))
    untilted = 0.5 * np.abs(LANGUAGE.table - TILTED.table).sum()
    assert untilted > 1.2 * few > 2 * many


def test_a_large_strength_leaves_copies_of_good_particles():
    """The last resampling reads the finished samples: most groups of four end as copies of one."""
    tokens = steered(4, 10.0).reshape(-1, 4, LENGTH)
    assert (tokens == tokens[:, :1]).all(axis=(1, 2)).mean() > 0.5
    assert rewards_of(tokens.reshape(-1, LENGTH)) > rewards_of(samples_of(None, 64)) + 0.3


def rewards_of(tokens):
    return float(reward(jnp.asarray(tokens)).mean())


def test_rows_mark_the_steps_after_which_particles_are_resampled():
    rows = equal_steps(Linear(), 10, end=1e-3)
    assert np.flatnonzero(rows.resampled).tolist() == [2, 4, 7, 9, 10]
    assert np.flatnonzero(rows.last).tolist() == [10]
