"""Masses of sets of tokens: a worked example, a simple reference, exact gradients, and logits that underflow."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtoken_marginals import agrees, carry_over, log_masses
from diffusion.codecs.subtokens import SubtokenCodec, shuffled_codec

# 0 (0,0), 1 (0,1), 2 (0,2), 3 (1,0), 4 (1,1); (1,2) and (2,.) encode no token.
CODEC = SubtokenCodec(5, 2)
M = CODEC.mask_id
LOGITS = np.arange(5, dtype=np.float32)[None, None]
# The softmax over the tokens that agree with a state.
SOFTMAX = {
    (M, M): {0: 0.011656, 1: 0.031685, 2: 0.086129, 3: 0.234122, 4: 0.636409},
    (0, M): {0: 0.090031, 1: 0.244728, 2: 0.665241},
    (1, M): {3: 0.268941, 4: 0.731059},
    (M, 0): {0: 0.047426, 3: 0.952574},
    (M, 1): {1: 0.047426, 4: 0.952574},
    (M, 2): {2: 1.0},
    (1, 1): {4: 1.0},
}
# The marginal of each sub-token, then the whole token.
FIELDS = jnp.asarray(np.array([*CODEC.fields, CODEC.fields.sum(dtype=np.uint32)])[None, None])
BIG = shuffled_codec(37, 3, seed=5)
SETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [1, 0, 1], [0, 0, 0]], bool)
BITS = jnp.asarray(np.where(SETS, BIG.fields[None], 0).sum(axis=1, dtype=np.uint32)[None, None])
WEIGHTS = np.arange(1.0, 1 + len(SETS), dtype=np.float32)[None, None]

masses_of = jax.jit(log_masses, static_argnames="codec")
allowed_of = jax.jit(lambda codec, states: agrees(jnp.asarray(codec.packed), *codec.pack(states)), static_argnums=0)


def states(*digits):
    """A batch of sequences of one token, with these sub-tokens."""
    return np.array(digits)[:, None]


def test_the_filter_compares_all_subtokens():
    """In all states, including those of no token."""
    for codec in (CODEC, SubtokenCodec(37, 3), shuffled_codec(37, 2, 1, every_code=True)):
        every = np.array(list(itertools.product(range(codec.base + 1), repeat=codec.digits)))
        expected = np.all((codec.table.T == every[:, None]) | (every == codec.mask_id)[:, None], axis=-1)
        np.testing.assert_array_equal(allowed_of(codec, every), expected)


def test_filtered_softmax_of_the_worked_example():
    filtered = jax.jit(lambda logits, known: jax.nn.softmax(carry_over(logits, CODEC, known)))
    probs = filtered(np.tile(LOGITS, (len(SOFTMAX), 1, 1)), states(*SOFTMAX))[:, 0]
    expected = [[row.get(token, 0) for token in range(5)] for row in SOFTMAX.values()]
    np.testing.assert_allclose(probs, expected, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(probs) > 0, np.array(expected) > 0)


def test_marginals_of_the_worked_example():
    cases = [(state, token) for state, row in SOFTMAX.items() for token in row]
    known, clean = states(*(state for state, _ in cases)), states(*(divmod(token, 3) for _, token in cases))
    logs = masses_of(np.tile(LOGITS, (len(cases), 1, 1)), codec=CODEC, known=known, clean=clean, fields=FIELDS)
    expected = []
    for state, token in cases:
        row = SOFTMAX[state]
        first = sum(prob for other, prob in row.items() if other // 3 == token // 3)
        second = sum(prob for other, prob in row.items() if other % 3 == token % 3)
        expected.append([first, second, row[token]])
    np.testing.assert_allclose(np.exp(logs)[:, 0], expected, atol=2e-6)


def test_classes_after_the_vocabulary_have_no_mass():
    padded = np.concatenate([LOGITS, np.full((1, 1, 2), 50, np.float32)], axis=-1)
    assert jax.eval_shape(lambda logits: carry_over(logits, CODEC, states((M, M))), padded).shape == (1, 1, 5)
    rest = dict(codec=CODEC, known=states((M, M)), clean=states((1, 0)), fields=FIELDS)
    np.testing.assert_array_equal(masses_of(LOGITS, **rest), masses_of(padded, **rest))


def reference(logits, codec, known, clean):
    """log-sum-exp over the allowed tokens of each set minus that over all allowed ones; `SETS` [M, l] define sets."""
    table = codec.table.T[None, None]
    allowed = np.all((table == known[:, :, None]) | (known == codec.mask_id)[:, :, None], axis=-1)
    sets = [allowed & np.all((table == clean[:, :, None]) | ~row, axis=-1) for row in SETS]
    total = jax.nn.logsumexp(logits, axis=-1, where=allowed)
    return jnp.stack([jax.nn.logsumexp(logits, axis=-1, where=members) for members in sets], axis=-1) - total[..., None]


def loss(masses):
    return jnp.sum(WEIGHTS * jnp.tanh(masses)), masses


@pytest.fixture(scope="module")
def example():
    """Logits [4, 2, 37], a partially masked state whose first row is unmasked, and the clean sub-tokens."""
    rng = np.random.default_rng(0)
    clean = BIG.table.T[rng.integers(0, 37, (4, 2))]
    known = np.where(rng.random(clean.shape) < 0.6, BIG.mask_id, clean)
    known[0] = clean[0]
    return rng.normal(0, 3, (4, 2, 37)).astype(np.float32), known, clean


@pytest.fixture(scope="module")
def gradient_of():
    """Masses of `BITS` and the gradient of their loss."""

    def function(logits, known, clean):
        return loss(log_masses(logits, BIG, known, clean, BITS))

    return jax.jit(jax.value_and_grad(function, has_aux=True))


def test_values_and_gradients_agree_with_log_sum_exp(example, gradient_of):
    """Also under vmap and checkpoint."""
    (_, masses), gradient = gradient_of(*example)
    plain = jax.jit(jax.value_and_grad(lambda logits: loss(reference(logits, BIG, *example[1:])), has_aux=True))
    (_, expected), expected_gradient = plain(example[0])
    np.testing.assert_allclose(masses, expected, atol=2e-6)
    np.testing.assert_allclose(gradient, expected_gradient, atol=4e-6)
    assert np.abs(gradient).max() > 0.1

    @jax.checkpoint
    def one(*rows):
        return loss(log_masses(rows[0][None], BIG, rows[1][None], rows[2][None], BITS))[0]

    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(one)))(*example), gradient, atol=2e-6)


def test_gradients_are_exactly_zero_for_excluded_tokens_and_for_unmasked_tokens(example, gradient_of):
    (_, masses), gradient = jax.tree.map(np.asarray, gradient_of(*example))
    allowed = np.asarray(allowed_of(BIG, example[1]))
    assert not gradient[~allowed].any() and not gradient[0].any()
    undetermined = allowed.sum(axis=-1) > 1
    assert undetermined.any() and (np.abs(gradient).max(axis=-1) > 0)[undetermined].all()
    np.testing.assert_array_equal(masses[0], 0)
    np.testing.assert_allclose(masses[..., -1], 0, atol=1e-6)  # the set of all tokens


def test_logits_of_excluded_tokens_have_no_effect():
    """This holds for logits of any size."""
    logits = np.tile(LOGITS, (5, 1, 1))
    logits[1:, 0, [0, 2, 3]] = np.array([50.0, 1e4, 1e30, -1e30])[:, None]
    known, clean = states(*[(M, 1)] * 5), states(*[(1, 1)] * 5)
    masses = np.asarray(masses_of(logits, codec=CODEC, known=known, clean=clean, fields=FIELDS))
    np.testing.assert_array_equal(masses, masses[:1].repeat(5, axis=0))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_sets_whose_mass_underflows_have_a_finite_lower_bound_and_a_gradient(dtype):
    """The logit of token 0 is 200 nats above all others; the mass of a set is replaced by that of the clean token."""
    logits = np.array([200, 0, 0, 0, 0], dtype)[None, None]

    @jax.jit
    def results(logits, known):
        def masses(logits):
            return log_masses(logits, CODEC, known, jnp.asarray(states((1, 1))), FIELDS)[0, 0]

        # With the weight at t = 1e-3.
        return masses(logits), jax.jacrev(masses)(logits), jax.grad(lambda z: -1000 * masses(z).sum())(logits)

    masses, gradient, of_loss = results(logits, states((M, M)))
    exact = np.array([np.log(2), np.log(2), 0]) - 200
    np.testing.assert_allclose(masses, [-200, -200, -200], rtol=1e-6)
    assert np.all(masses <= exact + 1e-4)
    assert gradient.dtype == dtype
    np.testing.assert_allclose(np.asarray(gradient[:, 0, 0], np.float32), [[-1, 0, 0, 0, 1]] * 3, atol=1e-6)
    assert np.isfinite(np.asarray(of_loss, np.float32)).all()
    # A filter that leaves only improbable tokens.
    filtered, *_ = results(logits, states((1, M)))
    np.testing.assert_allclose(filtered, np.log([1, 0.5, 0.5]), atol=1e-6)


def test_bfloat16_logits_are_summed_in_float32(example, gradient_of):
    rounded = example[0].astype(jnp.bfloat16)
    (value, masses), gradient = gradient_of(rounded, *example[1:])
    (expected, _), expected_gradient = gradient_of(rounded.astype(np.float32), *example[1:])
    assert value == expected and masses.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(gradient, np.float32), expected_gradient, rtol=1e-2, atol=1e-6)
