"""The sub-token codec: its base, order, inverse, bit fields, and invalid arguments."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec, shuffled_codec, smallest_base
from tests.checks import refused

BASES = [
    (50257, 2, 225),
    (50257, 3, 37),
    (50257, 4, 15),
    (50257, 6, 7),
    (50257, 8, 4),
    (50257, 16, 2),
    (256, 2, 16),
    (256, 3, 7),
    (256, 4, 4),
    (256, 8, 2),
    (32000, 15, 2),
    (512, 2, 23),
    (5, 1, 5),
    (2, 1, 2),
    # Here the floating-point root is too large.
    (3125, 5, 5),
    (7776, 5, 6),
    (16807, 5, 7),
]
CODECS = [
    SubtokenCodec(5, 2),
    SubtokenCodec(5, 3),
    SubtokenCodec(37, 1),
    SubtokenCodec(256, 3),
    SubtokenCodec(50257, 4),
    SubtokenCodec(50257, 16),
    shuffled_codec(37, 2, seed=3),
    shuffled_codec(37, 2, seed=3, every_code=True),
]


def name(codec):
    return f"{codec.vocabulary}-{codec.digits}" + ("" if codec.permutation is None else f"-{len(codec.permutation)}")


@pytest.mark.parametrize(("vocabulary", "digits", "base"), BASES)
def test_base_is_the_smallest_that_encodes_the_vocabulary(vocabulary, digits, base):
    assert smallest_base(vocabulary, digits) == SubtokenCodec(vocabulary, digits).base == base
    assert SubtokenCodec(vocabulary, digits).mask_id == base
    assert base**digits >= vocabulary and (base == 2 or (base - 1) ** digits < vocabulary)


def test_the_most_significant_subtoken_is_first():
    codes = SubtokenCodec(5, 2).encode(jnp.array([[0, 1, 2], [3, 4, 0]]))
    np.testing.assert_array_equal(codes, [[[0, 0], [0, 1], [0, 2]], [[1, 0], [1, 1], [0, 0]]])
    text = SubtokenCodec(50257, 4)
    for token in (0, 14, 15, 50256):
        expected = [token // 15 ** (3 - j) % 15 for j in range(4)]
        np.testing.assert_array_equal(text.encode(jnp.array(token)), expected)
        np.testing.assert_array_equal(text.table[:, token], expected)


@pytest.mark.parametrize("codec", CODECS, ids=name)
def test_decoding_inverts_encoding(codec):
    tokens = jnp.arange(codec.vocabulary)
    digits = codec.encode(tokens)
    assert digits.shape == (codec.vocabulary, codec.digits) and digits.dtype == jnp.int32
    assert 0 <= digits.min() and digits.max() < codec.base
    np.testing.assert_array_equal(codec.decode(digits), tokens)
    assert codec.valid(digits).all()
    np.testing.assert_array_equal(digits.T, codec.table)


@pytest.mark.parametrize("codec", CODECS, ids=name)
def test_bit_fields_agree_with_the_table(codec):
    fields = codec.packed[None] & codec.fields[:, None]
    np.testing.assert_array_equal(fields >> codec.shifts[:, None], codec.table)
    assert sum(int(field) for field in codec.fields) == 2 ** (codec.bits * codec.digits) - 1
    assert len(np.unique(codec.packed)) == codec.vocabulary
    value, bits = codec.pack(codec.encode(jnp.arange(codec.vocabulary)))
    np.testing.assert_array_equal(value, codec.packed)
    assert value.dtype == bits.dtype == jnp.uint32 and (bits == codec.fields.sum(dtype=np.uint32)).all()


def test_masked_subtokens_have_no_bits():
    value, bits = SubtokenCodec(50257, 4).pack(jnp.array([[1, 15, 14, 15], [15, 15, 15, 15]]))
    np.testing.assert_array_equal(value, [1 | 14 << 8, 0])
    np.testing.assert_array_equal(bits, [0x0F0F, 0])


def test_all_32_bits_may_be_used():
    """With sixteen base-3 sub-tokens of two bits, the field of the last one has the sign bit of a signed integer."""
    codec = SubtokenCodec(70_000, 16)
    assert codec.base == 3 and codec.bits * codec.digits == 32
    highest = int(codec.packed.argmax())
    assert codec.packed[highest] >= 2**31
    value, _ = codec.pack(codec.encode(jnp.array([highest])))
    assert value[0] == codec.packed[highest]


def test_masked_codes_and_codes_of_no_token_decode_to_the_vocabulary_size():
    codec = SubtokenCodec(5, 2)
    subtokens = jnp.array([[[first, second] for second in range(-1, 5)] for first in range(-1, 5)])
    tokens = np.asarray(codec.decode(subtokens))
    expected = np.full((6, 6), 5)
    expected[1, 1:4], expected[2, 1:3] = [0, 1, 2], [3, 4]
    np.testing.assert_array_equal(tokens, expected)
    np.testing.assert_array_equal(codec.valid(subtokens), expected < 5)


def test_a_permutation_of_tokens_permutes_their_codes():
    plain, permuted = SubtokenCodec(37, 2), shuffled_codec(37, 2, seed=3)
    assert not np.array_equal(permuted.permutation, np.arange(37))
    np.testing.assert_array_equal(permuted.table, plain.table[:, permuted.permutation])
    np.testing.assert_array_equal(permuted.table, shuffled_codec(37, 2, seed=3).table)
    assert (permuted.table != shuffled_codec(37, 2, seed=4).table).any()


def test_a_permutation_of_all_codes_uses_codes_of_no_token():
    """There are 7^2 = 49 codes for 37 tokens."""
    plain, permuted = SubtokenCodec(37, 2), shuffled_codec(37, 2, seed=3, every_code=True)
    assert len(permuted.permutation) == 49 and permuted.codes.max() >= 37
    subtokens = jnp.stack(jnp.meshgrid(jnp.arange(7), jnp.arange(7), indexing="ij"), axis=-1)
    for codec in (plain, permuted):
        tokens = np.ravel(codec.decode(subtokens))
        np.testing.assert_array_equal(np.sort(tokens), [*range(37), *[37] * 12])
    assert plain.valid(subtokens).ravel()[:37].all() and not permuted.valid(subtokens).ravel()[:37].all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((5, 0), r"codec\.digits: must be at least 1, not 0"),
        ((5, -2), r"codec\.digits: must be at least 1, not -2"),
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


@pytest.mark.parametrize("token", [5, -1])
def test_errors_name_tokens_outside_the_vocabulary(token):
    SubtokenCodec(5, 2).check(np.array([[0, 4], [2, 3]]))
    with pytest.raises(ValueError, match=rf"codec: token id {token} lies outside 0\.\.4"):
        SubtokenCodec(5, 2).check(np.array([[0, 4], [token, 3]]))
