"""The sub-token codec of MDM-Prime: its base, order, inverse, bit fields, and invalid arguments."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec, shuffled_codec, smallest_base
from tests.checks import refused

# The base by vocabulary and number of sub-tokens.
BASES = {
    50257: {2: 225, 3: 37, 4: 15, 6: 7, 8: 4, 16: 2},
    256: {2: 16, 3: 7, 4: 4, 8: 2},
    32000: {15: 2},
    512: {2: 23},
    5: {1: 5},
    2: {1: 2},
    # Here the floating-point root is too large.
    **{3125: {5: 5}, 7776: {5: 6}, 16807: {5: 7}},
}
CODECS = {
    "5-2": SubtokenCodec(5, 2),
    "37-1": SubtokenCodec(37, 1),
    "50257-16": SubtokenCodec(50257, 16),
    "shuffled": shuffled_codec(37, 2, seed=3),
    "shuffled codes": shuffled_codec(37, 2, seed=3, every_code=True),
}


def test_base_is_the_smallest_that_encodes_the_vocabulary():
    cases = [(vocabulary, digits, base) for vocabulary, row in BASES.items() for digits, base in row.items()]
    for vocabulary, digits, base in cases:
        codec = SubtokenCodec(vocabulary, digits)
        assert smallest_base(vocabulary, digits) == codec.base == codec.mask_id == base
        assert base**digits >= vocabulary and (base == 2 or (base - 1) ** digits < vocabulary)


def test_the_most_significant_subtoken_is_first():
    np.testing.assert_array_equal(SubtokenCodec(5, 2).table.T, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1]])
    expected = [[token // 15 ** (3 - place) % 15 for place in range(4)] for token in (0, 14, 15, 50256)]
    np.testing.assert_array_equal(SubtokenCodec(50257, 4).table[:, [0, 14, 15, 50256]].T, expected)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_codes_and_bit_fields_agree_with_the_table(codec):
    tokens = np.arange(codec.vocabulary)

    @jax.jit
    def results(tokens):
        digits = codec.encode(tokens)
        return digits, codec.decode(digits), *codec.pack(digits)

    digits, decoded, value, bits = results(tokens)
    assert digits.dtype == jnp.int32 and 0 <= codec.table.min() and codec.table.max() < codec.base
    np.testing.assert_array_equal(digits.T, codec.table)
    np.testing.assert_array_equal(decoded, tokens)
    fields = codec.packed[None] & codec.fields[:, None]
    np.testing.assert_array_equal(fields >> codec.shifts[:, None], codec.table)
    assert sum(map(int, codec.fields)) == 2 ** (codec.bits * codec.digits) - 1
    assert len(np.unique(codec.packed)) == codec.vocabulary
    np.testing.assert_array_equal(value, codec.packed)
    assert value.dtype == bits.dtype == jnp.uint32 and np.all(bits == codec.fields.sum(dtype=np.uint32))


def test_masked_subtokens_have_no_bits():
    value, bits = jax.jit(SubtokenCodec(50257, 4).pack)(np.array([[1, 15, 14, 15], [15, 15, 15, 15]]))
    np.testing.assert_array_equal(value, [1 | 14 << 8, 0])
    np.testing.assert_array_equal(bits, [0x0F0F, 0])


def test_all_32_bits_may_be_used():
    """With sixteen base-3 sub-tokens of two bits, the field of the last one has the sign bit of a signed integer."""
    codec = SubtokenCodec(70_000, 16)
    assert codec.base == 3 and codec.bits * codec.digits == 32
    highest = codec.packed.argmax()
    assert codec.packed[highest] >= 2**31
    assert jax.jit(codec.pack)(codec.table[:, [highest]].T)[0] == codec.packed[highest]


def test_masked_codes_and_codes_of_no_token_decode_to_the_vocabulary_size():
    codec = SubtokenCodec(5, 2)
    subtokens = np.array(list(itertools.product(range(-1, 5), repeat=2))).reshape(6, 6, 2)
    expected = np.full((6, 6), 5)
    expected[1, 1:4], expected[2, 1:3] = [0, 1, 2], [3, 4]
    np.testing.assert_array_equal(jax.jit(codec.decode)(subtokens), expected)


def test_a_permutation_of_tokens_permutes_their_codes():
    plain, permuted = SubtokenCodec(37, 2), CODECS["shuffled"]
    assert not np.array_equal(permuted.permutation, np.arange(37))
    np.testing.assert_array_equal(permuted.table, plain.table[:, permuted.permutation])
    np.testing.assert_array_equal(permuted.table, shuffled_codec(37, 2, seed=3).table)
    assert (permuted.table != shuffled_codec(37, 2, seed=4).table).any()


def test_a_permutation_of_all_codes_uses_codes_of_no_token():
    """There are 7^2 = 49 codes for 37 tokens."""
    plain, permuted = SubtokenCodec(37, 2), CODECS["shuffled codes"]
    assert len(permuted.permutation) == 49 and permuted.codes.max() >= 37
    for codec in (plain, permuted):
        np.testing.assert_array_equal(np.sort(codec.tokens), [*range(37), *[37] * 12])
    np.testing.assert_array_equal(plain.tokens[:37], np.arange(37))
    assert (permuted.tokens[:37] == 37).any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((5, 0), r"codec\.digits: must be at least 1, not 0"),
        ((1, 2), r"codec: a vocabulary of 1 token"),
        ((5, 33), r"codec\.digits: 33 digits of 1 bits are too many; a vocabulary of 5 needs at most 3"),
        ((3**11, 17), r"codec\.digits: 17 digits of 2 bits are too many.* at most 18, and all bits must fit 32"),
        ((5, 2, np.arange(4)), r"codec\.permutation: must have 5 or 9 entries, not 4"),
        ((5, 2, np.array([0, 1, 2, 3, 3])), r"codec\.permutation: must hold each of 0\.\.4 exactly once"),
        ((5, 2, np.arange(1, 10)), r"codec\.permutation: must hold each of 0\.\.8 exactly once"),
    ],
)
def test_errors_name_the_invalid_field(fields, message):
    with refused(message):
        SubtokenCodec(*fields)
