"""The embedding of partially masked tokens: columns, shapes, sharing, and invalid sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.nets.subtoken_embedding import SubtokenEmbedding
from tests.checks import refused

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


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_subtokens_fill_columns_or_are_added(merge, shared):
    """Masks have a row as well, and separate tables are packed one after the other."""
    net = SubtokenEmbedding(BASE, DIGITS, HIDDEN, merge, shared)
    table = table_of(net)
    count, width = 1 if shared else DIGITS, HIDDEN // DIGITS if merge == "concat" else HIDDEN
    assert table.shape == (count * (BASE + 1), width)
    parts = [table[(0 if shared else place * (BASE + 1)) :][TOKENS[..., place]] for place in range(DIGITS)]
    expected = np.concatenate(parts, axis=-1) if merge == "concat" else sum(parts)
    np.testing.assert_array_equal(embed(net, table), expected)
    # Only the sum of a shared table does not depend on the order of sub-tokens.
    swapped = embed(net, table, TOKENS[..., ::-1].reshape(STATE.shape))
    assert np.array_equal(embed(net, table), swapped) == (merge == "sum" and shared)


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
        (SubtokenEmbedding(BASE, 3, HIDDEN), r"codec\.digits: 3 digits do not divide model\.hidden=8; set codec\.mer"),
        (SubtokenEmbedding(BASE, DIGITS, HIDDEN, "mean"), r"codec\.merge: unknown 'mean'; known: concat, sum"),
    ],
)
def test_bad_embeddings_name_their_field(net, message):
    with refused(message):
        rows(net)
    assert rows(SubtokenEmbedding(BASE, 3, HIDDEN, "sum")) == (BASE + 1, HIDDEN)
