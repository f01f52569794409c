"""The embedding of partially masked tokens: columns, shapes, sharing, and invalid sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.nets.subtoken_embedding import SubtokenEmbedding

BASE, DIGITS, HIDDEN = 3, 2, 8
STATE = jnp.array([[1, 0, 3, 2, 3, 3], [0, 3, 3, 3, 2, 1]])
TOKENS = STATE.reshape(2, 3, DIGITS)


def embed(net, table, state=STATE):
    return np.asarray(net.apply({"params": {"table": jnp.asarray(table)}}, state))


def rows(net, state=STATE):
    return jax.eval_shape(net.init, jax.random.key(0), state)["params"]["table"].shape


def table_of(net):
    """Return a table whose entries, and sums of pairs of entries, are all different."""
    shape = rows(net)
    return (np.arange(np.prod(shape), dtype=np.float32) ** 2).reshape(shape)


def test_subtoken_j_fills_its_columns():
    net = SubtokenEmbedding(BASE, DIGITS, HIDDEN)
    table = table_of(net)
    out = embed(net, table)
    assert out.shape == (2, 3, HIDDEN) and table.shape == (BASE + 1, HIDDEN // DIGITS)
    for place in range(DIGITS):
        np.testing.assert_array_equal(out[..., 4 * place : 4 * place + 4], table[TOKENS[..., place]])


def test_a_fully_masked_token_is_the_mask_row_repeated():
    net = SubtokenEmbedding(BASE, DIGITS, HIDDEN)
    table = table_of(net)
    out = embed(net, table)
    np.testing.assert_array_equal(out[0, 2], np.tile(table[BASE], DIGITS))
    np.testing.assert_array_equal(out[1, 1], out[0, 2])


def test_sum_adds_the_embeddings_of_all_subtokens():
    net = SubtokenEmbedding(BASE, DIGITS, HIDDEN, merge="sum")
    table = table_of(net)
    assert table.shape == (BASE + 1, HIDDEN)
    np.testing.assert_array_equal(embed(net, table), table[TOKENS].sum(axis=2))


@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_separate_tables_are_packed_one_after_the_other(merge):
    """Equal tables are equivalent to a shared one; with different ones the sum depends on the order of sub-tokens."""
    net = SubtokenEmbedding(BASE, DIGITS, HIDDEN, merge, shared=False)
    table = table_of(net)
    assert table.shape == (DIGITS * (BASE + 1), HIDDEN // DIGITS if merge == "concat" else HIDDEN)
    parts = [table[place * (BASE + 1) :][TOKENS[..., place]] for place in range(DIGITS)]
    expected = np.concatenate(parts, axis=-1) if merge == "concat" else sum(parts)
    np.testing.assert_array_equal(embed(net, table), expected)

    shared = net.clone(shared=True)
    np.testing.assert_array_equal(embed(net, np.tile(table_of(shared), (DIGITS, 1))), embed(shared, table_of(shared)))
    swapped = TOKENS[..., ::-1].reshape(STATE.shape)
    if merge == "sum":
        np.testing.assert_array_equal(embed(shared, table_of(shared)), embed(shared, table_of(shared), swapped))
        assert (embed(net, table) != embed(net, table, swapped)).any()


@pytest.mark.parametrize(("digits", "parameters"), [(1, 50258 * 768), (2, 86_784), (4, 3_072), (8, 480)])
def test_parameter_counts_of_the_published_tables(digits, parameters):
    """The vocabulary of GPT-2 at width 768, with one table for all sub-tokens."""
    base = SubtokenCodec(50257, digits).base
    state = jnp.zeros((1, 4 * digits), jnp.int32)
    net = SubtokenEmbedding(base, digits, 768)
    assert np.prod(rows(net, state)) == parameters
    assert rows(net, state) == (base + 1, 768 // digits)
    assert np.prod(rows(net.clone(shared=False), state)) == digits * parameters
    assert rows(net.clone(merge="sum", shared=False), state) == (digits * (base + 1), 768)


def test_initial_range_is_that_of_the_width():
    table = SubtokenEmbedding(50, 2, 64).init(jax.random.key(0), STATE)["params"]["table"]
    assert 0.9 / np.sqrt(32) < np.abs(table).max() <= 1 / np.sqrt(32)
    assert table.dtype == jnp.float32


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            SubtokenEmbedding(BASE, 3, HIDDEN),
            r"codec\.digits: 3 digits do not divide model\.hidden=8; set codec\.merge",
        ),
        (SubtokenEmbedding(BASE, DIGITS, HIDDEN, "mean"), r"codec\.merge: unknown 'mean'; known: concat, sum"),
    ],
)
def test_bad_embeddings_name_their_field(net, message):
    with pytest.raises(ValueError, match=message) as caught:
        rows(net)
    assert "\n" not in str(caught.value)
    assert rows(SubtokenEmbedding(BASE, 3, HIDDEN, "sum")) == (BASE + 1, HIDDEN)
