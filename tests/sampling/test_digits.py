"""Sampling half-known tokens: the reverse kernel, the laws of both draws, prompts, every policy, and the corrector.

The running example has five tokens of two base-3 digits, so that four of nine codes are no token's.
"""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs import Digits
from diffusion.corrupt.masking import Masking
from diffusion.corrupt.partial import PartialMasking
from diffusion.oracles.digits import digit_denoiser
from diffusion.oracles.enumerable import Enumerable, random_language
from diffusion.randomness import example_keys
from diffusion.sampling.digits import DigitDraw, ancestral_digits, rate_corrector, sample_tokens
from diffusion.sampling.draw import Draw
from diffusion.sampling.grid import exact_masks, grid
from diffusion.sampling.masked import MaskedSampler
from diffusion.sampling.select import (
    Policy,
    View,
    ancestral_step,
    confidence_step,
    first_hitting,
    random_order_step,
)
from diffusion.schedules import Linear, LogLinear, Polynomial

VOCABULARY = 5
CODEC = Digits(VOCABULARY, 2)
M, FREE = CODEC.mask_id, VOCABULARY
PROCESS = PartialMasking(CODEC, LogLinear())
UNFILTERED = replace(PROCESS, carry_over=False)
SOFTMAX = np.array([0.011656, 0.031685, 0.086129, 0.234122, 0.636409])
ANCESTRAL = Policy(ancestral_digits(2, 1.0))


def slope(params, noisy, time, cond=None, memory=None, *, keys=None):
    """Logits 0 .. 4 whatever the state."""
    return jnp.broadcast_to(jnp.arange(5.0)[None, None], (len(noisy), noisy.shape[1] // 2, 5))


def busy(params, noisy, time=None, cond=None, memory=None, *, keys=None):
    """Logits that depend on the whole state, token by token differently."""
    context = (jnp.cumsum(noisy, axis=1) + jnp.sum(noisy, axis=1, keepdims=True))[:, ::2]
    return 4 * jnp.sin(context[..., None] + 2.0 * jnp.arange(5.0)[None, None])


def keys_of(size, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(size))


@cache
def compiled(policy, process=PROCESS, denoiser=slope, independent=False, final="none"):
    """`run(keys, prompt, grid)`, compiled once a shape."""

    def run(keys, prompt, rows):
        return sample_tokens(sampler, process, None, keys, prompt, grid=rows)

    draw = DigitDraw(process, Draw(process.codec.vocabulary), independent)
    sampler = MaskedSampler(denoiser, process, policy, draw, final)
    return jax.jit(run)


def blank(size, length=8):
    return jnp.full((size, length), FREE)


def steps_of(steps, length=8, schedule=PROCESS.schedule, digits=2):
    return grid(schedule, steps, length * digits, end=0.0)


def within(measured, expected, count, tolerance=4):
    """A frequency of `count` trials."""
    return abs(np.mean(measured) - expected) < tolerance * np.sqrt(expected * (1 - expected) / count)


# The reverse kernel.


def test_one_step_of_the_reverse_kernel():
    """From t = 0.8 to s = 0.6 a digit stays masked with probability 0.75, and both of a token's go with 0.0625."""
    rows = jax.tree.map(lambda column: column[1:2], steps_of(5))
    np.testing.assert_allclose([rows.time[0], rows.next_time[0]], [0.8, 0.6], rtol=1e-6)
    sampler = MaskedSampler(slope, PROCESS, ANCESTRAL, DigitDraw(PROCESS, Draw(VOCABULARY)), "none")
    state = jax.jit(partial(sampler, None))(keys_of(2000), PROCESS.prior(2000, 8), rows).tokens
    masked = np.asarray(PROCESS.split(state) == M)
    assert within(masked, 0.75, masked.size)
    assert within(~masked.any(axis=-1), 0.0625, masked[..., 0].size)
    assert within(masked.all(axis=-1), 0.5625, masked[..., 0].size)
    assert within(~masked[:, 1:, 0] & ~masked[:, :-1, 1], 0.0625, masked[:, 1:, 0].size)


@pytest.mark.parametrize("digits", [1, 2])
def test_idle_steps_become_rare(digits):
    """(1 - 1/T)^(L l) of the steps change nothing: L = T = 8 gives 0.343609 and 0.118067."""
    size, process = 1500, PartialMasking(Digits(VOCABULARY, digits), LogLinear())
    denoiser = slope if digits == 2 else lambda params, noisy, *rest, **options: jnp.zeros((*noisy.shape, 5))
    run = compiled(Policy(ancestral_digits(digits, 1.0)), process, denoiser)
    idle = np.asarray(run(keys_of(size), blank(size), steps_of(8, digits=digits)).idle) / 8
    assert abs(idle.mean() - {1: 0.343609, 2: 0.118067}[digits]) < 4 * idle.std() / size**0.5


def test_one_digit_a_token_is_sampled_as_a_whole_token():
    """The same masks from the same keys, the same probabilities: MDLM's step."""
    whole, one = Masking(5, LogLinear()), PartialMasking(Digits(5, 1), LogLinear())
    row = jax.tree.map(lambda column: column[2], steps_of(5, digits=1))
    state = jnp.full((50, 8), 5).at[:, ::3].set(2)
    view = View(state == 5, jnp.zeros(state.shape, bool), state, None, None)
    masks = [step(keys_of(50), view, row, ())[0] for step in (ancestral_digits(1, 1.0), ancestral_step)]
    np.testing.assert_array_equal(*masks)
    logits = jnp.sin(jnp.arange(50 * 8 * 6.0)).reshape(50, 8, 6)
    options = jnp.ones(()), jnp.ones(())
    proposal = jax.jit(DigitDraw(one, Draw(5)))(keys_of(50), logits, state, *options)
    expected = whole.log_prob(logits, state, proposal.tokens)
    free = np.asarray(state == 5)
    np.testing.assert_allclose(np.asarray(proposal.log_prob)[free], np.asarray(expected)[free], atol=1e-6)
    np.testing.assert_array_equal(proposal.tokens[~free], state[~free])


# The laws of the two draws.


def chi_square(tokens, law):
    """In standard deviations above its mean."""
    expected = law * np.size(tokens)
    statistic = ((np.bincount(np.ravel(tokens), minlength=len(law)) - expected) ** 2 / expected).sum()
    return (statistic - (len(law) - 1)) / (2 * (len(law) - 1)) ** 0.5


@pytest.mark.parametrize("steps", [1, 2, 8])
def test_whole_token_draws_have_the_law_of_the_network_at_any_number_of_steps(steps):
    samples = compiled(ANCESTRAL)(keys_of(2000, steps), blank(2000), steps_of(steps))
    assert chi_square(samples.tokens, SOFTMAX) < 5
    assert not samples.invalid.any()
    assert (samples.evaluations == steps).all()


def test_independent_digits_of_one_step_lose_their_dependence():
    """P(4) = 0.870530 x 0.668094 and 7.5 % of the codes are no token's."""
    samples = compiled(ANCESTRAL, independent=True)(keys_of(2000), blank(2000), steps_of(1))
    assert within(samples.tokens == 4, 0.581596, 16_000)
    assert within(samples.tokens == FREE, 0.074978, 16_000)
    np.testing.assert_array_equal(samples.invalid, (samples.tokens == FREE).sum(axis=1))


def test_proposals_are_read_from_what_the_filter_leaves():
    """Known digits are proposed again, and the number reported is the digit's marginal before temperature."""
    state = jnp.array([[0, M, M, 1, M, M, 1, 1]])
    draw = DigitDraw(PROCESS, Draw(VOCABULARY))
    logits = slope(None, state, None)
    proposal = jax.jit(draw)(keys_of(1), logits, state, jnp.zeros(()), jnp.ones(()))
    np.testing.assert_array_equal(proposal.tokens, [[0, 2, 1, 1, 1, 1, 1, 1]])
    expected = np.log([1, 0.665241, 0.952574, 1, 0.870530, 0.668094, 1, 1])
    np.testing.assert_allclose(proposal.log_prob, expected[None], atol=2e-6)
    np.testing.assert_array_equal(draw.best(logits, state), proposal.tokens)
    unfiltered = DigitDraw(UNFILTERED, Draw(VOCABULARY)).best(logits, state)
    np.testing.assert_array_equal(unfiltered, [[1, 1] * 4])


def test_codes_of_no_token_are_counted_and_the_filter_prevents_them():
    rows, size = steps_of(4), 200
    loose = compiled(ANCESTRAL, UNFILTERED, busy)(keys_of(size), blank(size), rows)
    assert loose.invalid.sum() > 50
    np.testing.assert_array_equal(loose.invalid, (loose.tokens == FREE).sum(axis=1))
    strict = compiled(ANCESTRAL, PROCESS, busy)(keys_of(size), blank(size), rows)
    assert not strict.invalid.any() and strict.tokens.max() < VOCABULARY
    assert len(np.unique(strict.tokens)) == VOCABULARY


# Every policy.

SIZE, LENGTH, STEPS = 64, 6, 12
CORRECT = rate_corrector(PROCESS.schedule, np.linspace(1, 0, STEPS + 1), 10.0, 0.5, CODEC.mask_id)
CORRECTED = replace(ANCESTRAL, correct=CORRECT)
HITTING = first_hitting(PROCESS.schedule)
POLICIES = {
    "ancestral": ANCESTRAL,
    "grouped": Policy(ancestral_digits(2, 0.0)),
    "mixed": Policy(ancestral_digits(2, 0.7)),
    "random_order": Policy(random_order_step),
    "confidence": Policy(confidence_step(0.5)),
    "first_hitting": HITTING,
    "corrected": CORRECTED,
}
# A given token, a given first digit, a given second digit, and three free tokens.
PROMPT = jnp.broadcast_to(jnp.array([[1, 0], [0, M], [M, 1], [M, M], [M, M], [M, M]])[None], (SIZE, LENGTH, 2))
GIVEN = np.asarray(PROMPT != M)


def policy_number(which):
    """The policy of this number, which may be traced, so that one program serves all."""
    names = list(POLICIES)

    def select(keys, view, row, extra):
        branches = [lambda policy=policy: policy.select(keys, view, row, extra)[0] for policy in POLICIES.values()]
        return jax.lax.switch(which, branches), extra

    def time(extra, row, size):
        return jnp.where(which == names.index("first_hitting"), HITTING.time(extra, row, size), row.time)

    def correct(keys, state, proposal, row):
        return jnp.where(which == names.index("corrected"), CORRECT(keys, state, proposal, row), state)

    return Policy(select, HITTING.init, time, correct)


@pytest.fixture(scope="module")
def paths():
    """By policy: every state [T + 1, B, L, 2] that the sampler goes through, the last one included, and its costs."""
    seen = []

    def recording(params, noisy, *rest, **options):
        jax.debug.callback(lambda noisy: seen.append(np.asarray(noisy)), noisy, ordered=True)
        return busy(params, noisy)

    @jax.jit
    def run(which):
        sampler = MaskedSampler(
            recording, PROCESS, policy_number(which), DigitDraw(PROCESS, Draw(VOCABULARY)), final="none"
        )
        return sampler(None, keys_of(SIZE), PROMPT.reshape(SIZE, -1), steps_of(STEPS, LENGTH))

    found = {}
    for which, name in enumerate(POLICIES):
        seen.clear()
        samples = run(which)
        jax.effects_barrier()
        found[name] = np.stack([*seen, samples.tokens]).reshape(STEPS + 1, SIZE, LENGTH, 2), samples
    return found


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_fills_the_digits_and_leaves_the_prompt_alone(paths, name):
    states, samples = paths[name]
    for state in states:
        np.testing.assert_array_equal(state[GIVEN], np.asarray(PROMPT)[GIVEN])
    tokens = CODEC.decode(jnp.asarray(states[-1]))
    assert tokens.max() < VOCABULARY, "the filter leaves valid codes alone"
    assert (tokens[:, 1] < 3).all() and set(np.unique(tokens[:, 2])) <= {1, 4}
    assert len(np.unique(tokens[:, 3:])) == VOCABULARY
    assert (samples.evaluations == len(states) - 1).all()
    np.testing.assert_array_equal(samples.idle, (states[1:] == states[:-1]).all(axis=(2, 3)).sum(axis=0))


@pytest.mark.parametrize("name", sorted(POLICIES.keys() - {"corrected"}))
def test_known_digits_stay_known(paths, name):
    states, _ = paths[name]
    known = states[:-1] != M
    np.testing.assert_array_equal(states[1:][known], states[:-1][known])
    halves = (states != M).sum(axis=-1) == 1
    assert halves[1:, :, 3:].any() == (name != "grouped")


@pytest.mark.parametrize("name", ["random_order", "confidence"])
def test_exact_counts_follow_the_schedule_in_digits(paths, name):
    states, _ = paths[name]
    free = 2 * LENGTH - 4
    expected = np.ceil(0.999 * np.linspace(1, 0, STEPS + 1)[1:] * free - 1e-6)
    masks = (states == M).sum(axis=(2, 3))[1:]
    np.testing.assert_array_equal(masks, np.broadcast_to(expected[:, None], masks.shape))


def test_first_hitting_reveals_one_digit_a_step(paths):
    """No step is idle but those that the four given digits leave over, at the end."""
    states, samples = paths["first_hitting"]
    revealed = np.diff((states != M).sum(axis=(2, 3)), axis=0)
    np.testing.assert_array_equal(revealed, np.repeat([[1]] * 8 + [[0]] * 4, SIZE, axis=1))
    assert (samples.idle == 4).all()
    # In random order: each free digit is as often among the first four.
    early = (states[4] != M)[:, 3:].mean(axis=0)
    assert np.all(np.abs(early - 0.5) < 4 * 0.5 / SIZE**0.5)


def test_grouped_steps_reveal_the_digits_of_a_token_together(paths):
    states, _ = paths["grouped"]
    masked = states[:, :, 3:] == M
    np.testing.assert_array_equal(masked.any(axis=-1), masked.all(axis=-1))
    fractions = masked.mean(axis=(1, 2, 3))
    expected = np.linspace(1, 0, STEPS + 1)
    assert np.all(np.abs(fractions - expected) <= 4 * np.sqrt(expected * (1 - expected) / (3 * SIZE)))


def test_above_the_chunk_point_alone_digits_go_together(paths):
    """Steps begin at t = 1, 11/12, ..: the first four share coins."""
    states, _ = paths["mixed"]
    half = ((states == M).sum(axis=-1) == 1)[:, :, 3:]
    assert not half[:5].any() and half[5].any()


def test_masked_fraction_of_digits_follows_the_schedule(paths):
    masked = (paths["ancestral"][0] == M)[:, :, 3:].mean(axis=(1, 2, 3))
    expected = np.linspace(1, 0, STEPS + 1)
    assert np.all(np.abs(masked - expected) <= 4 * np.sqrt(expected * (1 - expected) / (6 * SIZE)))


def test_a_prompt_of_tokens_is_one_of_digits():
    tokens = blank(32, LENGTH).at[:, 1].set(3).at[:, 4].set(2)
    digits = jnp.full((32, LENGTH, 2), M).at[:, 1].set(jnp.array([[1, 0]])).at[:, 4].set(jnp.array([[0, 2]]))
    run, rows = compiled(ANCESTRAL, PROCESS, busy), steps_of(STEPS, LENGTH)
    first, second = (run(keys_of(32), prompt, rows).tokens for prompt in (tokens, digits))
    np.testing.assert_array_equal(first, second)
    assert (first[:, 1] == 3).all() and (first[:, 4] == 2).all()


def test_samples_do_not_depend_on_the_batch_around_them():
    run, rows = compiled(CORRECTED, PROCESS, busy), steps_of(STEPS, LENGTH)
    together = run(keys_of(3), blank(3, LENGTH), rows).tokens
    alone = run(keys_of(3)[1:2], blank(1, LENGTH), rows).tokens
    np.testing.assert_array_equal(together[1:2], alone)


@pytest.mark.parametrize("final", ["argmax", "draw"])
def test_noise_removal_fills_the_digits_that_are_left(final):
    """One step that reveals next to nothing, then one more evaluation: argmax gives token 4, a draw the softmax."""
    rows = grid(LogLinear(), 1, 16, end=0.999)
    samples = compiled(ANCESTRAL, final=final)(keys_of(500), blank(500), rows)
    assert (samples.evaluations == 2).all()
    if final == "draw":
        assert chi_square(samples.tokens, SOFTMAX) < 5
    else:
        assert (samples.tokens == 4).mean() > 0.99


# The law of samples under the exact posterior.

LANGUAGE = random_language(0, vocabulary=3, length=3)
SAMPLES = 8192
FLOOR = LANGUAGE.total_variation_floor(SAMPLES)
PAIR = PartialMasking(Digits(3, 2), Linear())
EXACT = digit_denoiser(LANGUAGE, PAIR.codec)


def oracle(params, noisy, time, cond=None, memory=None, *, keys=None):
    return EXACT(noisy, time)


@cache
def drawn(policy, steps, seed=0, independent=False):
    rows = grid(PAIR.schedule, steps, 6, end=0.0)
    return compiled(policy, PAIR, oracle, independent)(keys_of(SAMPLES, seed), jnp.full((SAMPLES, 3), 3), rows)


def at_the_floor(variation, floor=FLOOR):
    return 0.6 * floor < variation < 1.4 * floor


def test_total_variation_of_the_ancestral_sampler_falls_to_the_floor():
    """One step is the product of the tokens' marginals, for a token's digits are drawn together."""
    variations = []
    for steps in (1, 4, 16, 64):
        tokens = drawn(ANCESTRAL, steps, seed=2).tokens
        variations.append(LANGUAGE.total_variation(tokens))
        if steps == 1:
            table = LANGUAGE.table.reshape(3, 3, 3)
            law = [table.sum(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
            product = Enumerable(np.einsum("i,j,k->ijk", *law).ravel() / np.prod([p.sum() for p in law]), 3, 3)
            assert at_the_floor(product.total_variation(tokens), product.total_variation_floor(SAMPLES))
    assert variations[0] > 1.5 * variations[1] > 3 * variations[2]
    assert variations[0] > 10 * FLOOR
    assert at_the_floor(variations[3])


@pytest.mark.parametrize("policy", [Policy(random_order_step), first_hitting(Linear())], ids=["random", "hitting"])
@pytest.mark.parametrize("independent", [False, True], ids=["token", "marginal"])
def test_one_digit_a_step_in_random_order_is_exact(policy, independent):
    """Both draws are then draws of single digits, and neither makes a code of no token."""
    samples = drawn(policy, 6, seed=1, independent=independent)
    assert not samples.invalid.any() and not samples.idle.any()
    assert at_the_floor(LANGUAGE.total_variation(samples.tokens))


def test_the_corrector_keeps_the_law():
    """With the exact posterior re-masking and revealing again changes nothing but the number of changes."""
    steps = 64
    correct = rate_corrector(PAIR.schedule, np.linspace(1, 0, steps + 1), 4.0, 1.0, PAIR.mask_id)
    samples = drawn(replace(ANCESTRAL, correct=correct), steps, seed=3)
    assert not samples.invalid.any()
    assert at_the_floor(LANGUAGE.total_variation(samples.tokens))
    assert samples.idle.mean() < drawn(ANCESTRAL, steps, seed=2).idle.mean() - 2


# The rate corrector by itself.

CUBIC = Polynomial(3.0)  # alpha = tau^3
TIMES = np.linspace(1, 0, 6)


def row_at(index):
    return jax.tree.map(lambda column: column[index], grid(CUBIC, 5, 8, end=0.0))


def jumps(index, scale, power, times=TIMES, size=400, length=300):
    """Frequencies of (proposal, mask) after the corrector: for masked, other and agreeing positions."""
    correct = rate_corrector(CUBIC, times, scale, power, M)
    state = jnp.broadcast_to(jnp.arange(length)[None] % 3, (size, length))
    state = jnp.where(state == 0, M, state)
    after = np.asarray(jax.jit(correct)(keys_of(size), state, jnp.full((size, length), 2), row_at(index)))
    kinds = [after[:, start::3] for start in range(3)]  # M, 1 and 2 where 2 is proposed
    return {
        name: ((kind == 2).mean(), (kind == M).mean())
        for name, kind in zip(("masked", "other", "same"), kinds, strict=True)
    }


@pytest.mark.parametrize("index", [0, 4])
def test_the_corrector_leaves_the_first_and_the_last_step_alone(index):
    found = jumps(index, 50.0, 0.0)
    assert found == {"masked": (0, 1), "other": (0, 0), "same": (1, 0)}


@pytest.mark.parametrize(("index", "scale", "power"), [(1, 4.0, 1.0), (2, 4.0, 0.5), (3, 1.0, 0.0), (3, 0.0, 1.0)])
def test_jumps_of_the_corrector_have_the_published_rates(index, scale, power):
    """u = alpha'/(1 - alpha) d + kappa alpha'/(alpha (1 - alpha)) [(1 - alpha) m + alpha d], alpha = tau^3."""
    tau, width, trials = index / 5, 1 / 5, 40_000
    kappa, slope = scale * tau**power * (1 - tau) ** power, 3 * tau**2
    forward = width * (slope / (1 - tau**3) + kappa * slope / (1 - tau**3))
    backward = width * kappa * slope / tau**3
    found = jumps(index, scale, power)
    stay = np.exp(-forward - backward)
    share = forward / (forward + backward)
    for name, (proposed, masked) in {
        "masked": (1 - np.exp(-forward), np.exp(-forward)),
        "other": ((1 - stay) * share, (1 - stay) * (1 - share)),
        "same": (np.exp(-backward), 1 - np.exp(-backward)),
    }.items():
        for measured, expected in zip(found[name], (proposed, masked), strict=True):
            assert abs(measured - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / trials), name


def test_the_corrector_follows_warped_times():
    """Its rates are those of the time at which a step begins, and of the step's width."""
    times = np.array([1.0, 0.5, 0.4, 0.3, 0.2, 0.0])
    found = jumps(1, 0.0, 1.0, times)
    expected = 1 - np.exp(-0.1 * 3 * 0.5**2 / (1 - 0.5**3))
    assert within(found["masked"][0], expected, 40_000)


def test_corrected_samples_mask_again_and_keep_what_is_given(paths):
    states, _ = paths["corrected"]
    again = (states[:-1] != M) & (states[1:] == M)
    assert again[1:-1].any() and not again[-1].any(), "the last step is not corrected"
    assert not again[:, GIVEN].any()


@pytest.mark.parametrize("options", [(-1.0, 1.0), (1.0, -0.5)])
def test_bad_correctors_name_their_field(options):
    with pytest.raises(ValueError, match=r"sample\.corrector: scale and power must not be negative"):
        rate_corrector(CUBIC, TIMES, *options, M)


# Time and temperature.


def test_temperature_ramps_with_the_data_time():
    rows = grid(LogLinear(), 4, 8, end=0.0, temperature=1.0, ramp=(-0.4, 2.0))
    np.testing.assert_allclose(rows.temperature, [1, 1 - 0.4 / 16, 0.9, 1 - 0.4 * 9 / 16], rtol=1e-6)
    np.testing.assert_allclose(grid(LogLinear(), 4, 8, temperature=0.7).temperature, 0.7, rtol=1e-6)


def test_warped_grids_move_everything_that_depends_on_time():
    """tau -> 1 - (1 - tau)^2, that is t -> t^2; the ramp reads the warped time."""
    rows = grid(CUBIC, 4, 8, end=0.0, ramp=(1.0, 1.0), warp=(1.0, 2.0, 0.0))
    times = np.array([1, 9 / 16, 1 / 4, 1 / 16, 0])
    np.testing.assert_allclose(rows.time, times[:-1], atol=1e-7)
    np.testing.assert_allclose(rows.next_time, times[1:], atol=1e-7)
    np.testing.assert_allclose(rows.alpha, (1 - times[:-1]) ** 3, atol=1e-6)
    np.testing.assert_allclose(rows.next_alpha, (1 - times[1:]) ** 3, atol=1e-6)
    np.testing.assert_allclose(rows.temperature, 2 - times[:-1], rtol=1e-6)
    np.testing.assert_array_equal(rows.masks, exact_masks(1 - (1 - times[1:]) ** 3, 8))
    scaled = grid(CUBIC, 4, 8, end=0.2, warp=(0.9, 1.0, 0.1))
    np.testing.assert_allclose(scaled.time, 0.9 * np.linspace(1, 0.2, 5)[:-1] - 0.1, rtol=1e-6)
    for one, other in zip(grid(CUBIC, 4, 8, warp=(1.0, 1.0, 0.0)), grid(CUBIC, 4, 8), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"warp": (1.0, 2.0)}, r"sample\.warp: must be empty or \(a, p, c\)"),
        ({"warp": (1.0, 0.0, 0.0)}, r"sample\.warp: .* must make times fall"),  # the published codes' "off"
        ({"warp": (-1.0, 1.0, -1.0)}, r"sample\.warp: .* must make times fall"),
        ({"warp": (1.2, 1.0, 0.0)}, r"sample\.warp: .* within \[0, 1\]"),
        ({"warp": (1.0, 1.0, 0.1)}, r"sample\.warp: .* within \[0, 1\]"),
        ({"ramp": (-1.5, 1.0)}, r"sample\.temperature_ramp: \(-1\.5, 1\.0\)"),
        ({"ramp": (0.5, -1.0)}, r"sample\.temperature_ramp: \(0\.5, -1\.0\)"),
    ],
)
def test_bad_tables_name_their_field(options, said):
    with pytest.raises(ValueError, match=said) as caught:
        grid(LogLinear(), 8, 8, end=0.0, **options)
    assert "\n" not in str(caught.value)
