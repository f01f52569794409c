"""Masses of sets of tokens: a worked example, a simple reference, exact gradients, and logits that underflow."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from diffusion.codecs.subtoken_marginals import agrees, carry_over, log_masses
from diffusion.codecs.subtokens import SubtokenCodec, shuffled_codec

# 0 (0,0), 1 (0,1), 2 (0,2), 3 (1,0), 4 (1,1); (1,2) and (2,.) encode no token.
CODEC = SubtokenCodec(5, 2)
M = CODEC.mask_id
LOGITS = jnp.arange(5.0)[None, None]
ALLOWED = {
    (M, M): [0, 1, 2, 3, 4],
    (0, M): [0, 1, 2],
    (1, M): [3, 4],
    (M, 0): [0, 3],
    (M, 1): [1, 4],
    (M, 2): [2],
    (1, 1): [4],
}
SOFTMAX = {
    (M, M): [0.011656, 0.031685, 0.086129, 0.234122, 0.636409],
    (0, M): [0.090031, 0.244728, 0.665241],
    (1, M): [0.268941, 0.731059],
    (M, 0): [0.047426, 0.952574],
    (M, 1): [0.047426, 0.952574],
    (M, 2): [1.0],
    (1, 1): [1.0],
}


def state(*digits):
    """The sub-tokens of one token as a batch of one sequence of one token."""
    return jnp.array(digits)[None, None]


def allowed_tokens(codec, digits):
    return np.asarray(agrees(jnp.asarray(codec.packed), *codec.pack(digits)))


@pytest.mark.parametrize(
    "codec", [CODEC, SubtokenCodec(37, 3), shuffled_codec(37, 2, 1), shuffled_codec(37, 2, 1, True)], ids=repr
)
def test_the_filter_compares_all_subtokens(codec):
    """In all states, including those of no token."""
    states = jnp.array(list(itertools.product(range(codec.base + 1), repeat=codec.digits)))
    table = codec.table.T[None]
    expected = np.all((table == states[:, None]) | (np.asarray(states) == codec.mask_id)[:, None], axis=-1)
    np.testing.assert_array_equal(allowed_tokens(codec, states), expected)


@pytest.mark.parametrize("digits", SOFTMAX)
def test_filtered_softmax_of_the_worked_example(digits):
    probs = np.asarray(jax.nn.softmax(carry_over(LOGITS, CODEC, state(*digits))))[0, 0]
    np.testing.assert_allclose(probs[ALLOWED[digits]], SOFTMAX[digits], atol=1e-6)
    assert np.count_nonzero(probs) == len(ALLOWED[digits])


def test_classes_after_the_vocabulary_have_no_mass():
    padded = jnp.concatenate([LOGITS, jnp.full((1, 1, 2), 50.0)], axis=-1)
    assert carry_over(padded, CODEC, state(M, M)).shape == (1, 1, 5)
    every = [log_masses(logits, CODEC, state(M, M), state(1, 0), fields()) for logits in (LOGITS, padded)]
    np.testing.assert_array_equal(*every)


def fields(codec=CODEC):
    """The marginal of each sub-token, then the whole token."""
    return jnp.asarray([*codec.fields, codec.fields.sum(dtype=np.uint32)])[None, None]


# Over the values that tokens have: no token has the value 2 of sub-token 1.
MARGINALS = {
    (M, M): ([0.129470, 0.870530], [0.245778, 0.668094, 0.086129]),
    (0, M): ([1.0], [0.090031, 0.244728, 0.665241]),
    (M, 1): ([0.047426, 0.952574], [1.0]),
    (1, 1): ([1.0], [1.0]),
}


@pytest.mark.parametrize("digits", MARGINALS)
def test_marginals_of_the_worked_example(digits):
    marginals = [{}, {}]
    for token in ALLOWED[digits]:
        clean = CODEC.encode(jnp.array([[token]]))
        masses = np.exp(log_masses(LOGITS, CODEC, state(*digits), clean, fields()))[0, 0]
        assert masses[2] == pytest.approx(SOFTMAX[digits][ALLOWED[digits].index(token)], abs=1e-6)
        for place in range(2):
            value = int(clean[0, 0, place])
            assert marginals[place].setdefault(value, masses[place]) == masses[place]
    for marginal, expected in zip(marginals, MARGINALS[digits], strict=True):
        np.testing.assert_allclose([marginal[value] for value in sorted(marginal)], expected, atol=1e-6)
        assert sum(marginal.values()) == pytest.approx(1, abs=1e-6)


def reference(logits, codec, known, clean, bits):
    """log-sum-exp over the allowed tokens of each set minus that over all allowed ones; `bits` [M, l] define sets."""
    table = jnp.asarray(codec.table.T)[None, None]
    allowed = jnp.all((table == known[:, :, None]) | (known == codec.mask_id)[:, :, None], axis=-1)
    logits = logits.astype(jnp.float32)

    def total(where):
        return jax.nn.logsumexp(logits, axis=-1, where=where)

    sets = [
        allowed & jnp.all((table == clean[:, :, None]) | ~jnp.asarray(row)[None, None, None], axis=-1) for row in bits
    ]
    return jnp.stack([total(members) for members in sets], axis=-1) - total(allowed)[..., None]


BIG = shuffled_codec(37, 3, seed=5)
SETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [1, 0, 1], [0, 0, 0]], bool)


@pytest.fixture(scope="module")
def example():
    """Logits [4, 2, 37], a partially masked state, the clean sub-tokens, and the bits of `SETS`."""
    keys = jax.random.split(jax.random.key(0), 3)
    clean = BIG.encode(jax.random.randint(keys[0], (4, 2), 0, 37))
    known = jnp.where(jax.random.bernoulli(keys[1], 0.6, clean.shape), BIG.mask_id, clean)
    bits = jnp.sum(jnp.where(SETS, BIG.fields[None], 0), axis=1, dtype=jnp.uint32)[None, None]
    return 3 * jax.random.normal(keys[2], (4, 2, 37)), known, clean, bits


def test_values_and_gradients_agree_with_log_sum_exp(example):
    """Also under jit, vmap and checkpoint."""
    logits, known, clean, bits = example
    scale = jnp.arange(1.0, 1 + len(SETS))[None, None]

    def ours(logits, known, clean):
        return jnp.sum(scale * jnp.tanh(log_masses(logits, BIG, known, clean, bits)))

    def plain(logits, known, clean):
        return jnp.sum(scale * jnp.tanh(reference(logits, BIG, known, clean, SETS)))

    def one(function):
        return lambda *rows: function(*(row[None] for row in rows))

    np.testing.assert_allclose(
        log_masses(logits, BIG, known, clean, bits), reference(logits, BIG, known, clean, SETS), atol=2e-6
    )
    expected = jax.jit(jax.grad(plain))(logits, known, clean)
    np.testing.assert_allclose(jax.jit(jax.grad(ours))(logits, known, clean), expected, atol=2e-6)
    split = jax.jit(jax.vmap(jax.grad(jax.checkpoint(one(ours)))))(logits, known, clean)
    np.testing.assert_allclose(split, expected, atol=2e-6)
    assert np.abs(expected).max() > 0.1


def test_gradients_agree_with_finite_differences(example):
    logits, known, clean, bits = example
    check_grads(jax.jit(lambda z: log_masses(z, BIG, known, clean, bits)), (logits,), 1, ["rev"], 2e-2, 2e-2, 1e-2)


def test_gradients_are_exactly_zero_for_excluded_tokens_and_for_unmasked_tokens(example):
    logits, known, clean, bits = example
    known = known.at[0].set(clean[0])
    gradient = np.asarray(jax.jit(jax.grad(lambda z: log_masses(z, BIG, known, clean, bits).sum()))(logits))
    allowed = allowed_tokens(BIG, known)
    assert not gradient[~allowed].any() and not gradient[0].any()
    undetermined = allowed.sum(axis=-1) > 1
    assert undetermined.any() and (np.abs(gradient).max(axis=-1) > 1e-3)[undetermined].all()
    masses = np.asarray(log_masses(logits, BIG, known, clean, bits))
    np.testing.assert_array_equal(masses[0], 0)
    np.testing.assert_allclose(masses[..., -1], 0, atol=1e-6)  # the set of all tokens


def test_logits_of_excluded_tokens_have_no_effect():
    """This holds for logits of any size."""
    small = log_masses(LOGITS, CODEC, state(M, 1), state(1, 1), fields())
    for size in (50.0, 1e4, 1e30, -1e30):
        large = LOGITS.at[..., jnp.array([0, 2, 3])].set(size)
        np.testing.assert_array_equal(log_masses(large, CODEC, state(M, 1), state(1, 1), fields()), small)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_sets_whose_mass_underflows_have_a_finite_lower_bound_and_a_gradient(dtype):
    """The logit of token 0 is 200 nats above all others; the mass of a set is replaced by that of the clean token."""
    logits = jnp.array([200.0, 0, 0, 0, 0], dtype)[None, None]

    def masses(logits):
        return log_masses(logits, CODEC, state(M, M), state(1, 1), fields())[0, 0]

    exact = np.array([np.log(2), np.log(2), 0]) - 200
    np.testing.assert_allclose(masses(logits), [-200, -200, -200], rtol=1e-6)
    assert np.all(masses(logits) <= exact + 1e-4)
    gradient = jax.jacrev(masses)(logits)
    assert gradient.dtype == dtype
    np.testing.assert_allclose(gradient[:, 0, 0].astype(jnp.float32), [[-1, 0, 0, 0, 1]] * 3, atol=1e-6)
    # With the weight at t = 1e-3, and with a filter that leaves only improbable tokens.
    loss = jax.grad(lambda z: -1000 * masses(z).sum())(logits)
    assert jnp.isfinite(loss).all()
    filtered = log_masses(logits, CODEC, state(1, M), state(1, 1), fields())[0, 0]
    np.testing.assert_allclose(filtered, np.log([1, 0.5, 0.5]), atol=1e-6)


def test_bfloat16_logits_are_summed_in_float32(example):
    logits, known, clean, bits = example
    rounded = logits.astype(jnp.bfloat16)
    low, high = (
        jax.value_and_grad(lambda z: log_masses(z, BIG, known, clean, bits).sum())(z)
        for z in (rounded, rounded.astype(jnp.float32))
    )
    assert low[0] == high[0] and low[0].dtype == jnp.float32 and low[1].dtype == jnp.bfloat16
    np.testing.assert_allclose(low[1].astype(jnp.float32), high[1], rtol=1e-2, atol=1e-6)
