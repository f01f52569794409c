"""The embedding of partially masked tokens: columns, shapes, sharing, and invalid sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.nets.subtoken_embedding import SubtokenEmbedding
from tests.checks import refused

BASE, HIDDEN = 3, 8
STATE = jnp.array([[1, 0, 3, 2, 3, 3], [0, 3, 3, 3, 2, 1]])


def rows(net, digits=1):
    state = jnp.zeros((1, 6 * digits), jnp.int32)
    return jax.eval_shape(net.init, jax.random.key(0), state)["params"]["table"].shape


@pytest.mark.parametrize(
    ("digits", "merge", "shared"),
    [(1, "concat", True), (2, "concat", True), (2, "concat", False), (2, "sum", True), (2, "sum", False)],
)
def test_subtokens_fill_columns_or_are_added(digits, merge, shared):
    """Masks have a row as well, and separate tables are packed one after the other."""
    net = SubtokenEmbedding(BASE, digits, HIDDEN, merge, shared)
    tokens = np.asarray(STATE).reshape(2, -1, digits)
    count, width = 1 if shared else digits, HIDDEN // digits if merge == "concat" else HIDDEN
    shape = (count * (BASE + 1), width)
    assert rows(net) == shape
    # All entries, and sums of pairs of entries, are different.
    table = (np.arange(np.prod(shape), dtype=np.float32) ** 2).reshape(shape)
    parts = [table[(0 if shared else place * (BASE + 1)) :][tokens[..., place]] for place in range(digits)]
    expected = np.concatenate(parts, axis=-1) if merge == "concat" else sum(parts)
    np.testing.assert_array_equal(net.apply({"params": {"table": jnp.asarray(table)}}, STATE), expected)


@pytest.mark.parametrize(("digits", "parameters"), [(1, 50258 * 768), (2, 86_784), (4, 3_072), (8, 480)])
def test_parameter_counts_of_the_published_tables(digits, parameters):
    """The vocabulary of GPT-2 at width 768, with one table for all sub-tokens."""
    base = SubtokenCodec(50257, digits).base
    net = SubtokenEmbedding(base, digits, 768)
    assert np.prod(rows(net, digits)) == parameters
    assert rows(net, digits) == (base + 1, 768 // digits)
    assert np.prod(rows(net.clone(shared=False), digits)) == digits * parameters
    assert rows(net.clone(merge="sum", shared=False), digits) == (digits * (base + 1), 768)


def test_initial_range_is_that_of_the_width():
    table = SubtokenEmbedding(50, 2, 64).init(jax.random.key(0), STATE)["params"]["table"]
    assert 0.9 / np.sqrt(32) < np.abs(table).max() <= 1 / np.sqrt(32)
    assert table.dtype == jnp.float32


def test_bad_embeddings_name_their_field():
    with refused(r"codec\.digits: 3 digits do not divide model\.hidden=8; set codec\.mer"):
        rows(SubtokenEmbedding(BASE, 3, HIDDEN))
    with refused(r"codec\.merge: unknown 'mean'; known: concat, sum"):
        rows(SubtokenEmbedding(BASE, 2, HIDDEN, "mean"))
    assert rows(SubtokenEmbedding(BASE, 3, HIDDEN, "sum")) == (BASE + 1, HIDDEN)
