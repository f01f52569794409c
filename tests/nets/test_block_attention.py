"""The transformer of block diffusion: one pass over noisy and clean tokens, and decoding with a cache of blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.attention_masks import BlockCausal, NoisyAndClean
from diffusion.nets.dit import DiT
from tests.weights import randomized

VOCAB, LENGTH, BLOCK, BATCH = 11, 12, 4, 3
NET = DiT(VOCAB, hidden=16, blocks=2, heads=2, cond_dim=8, dropout=0.0, mask=NoisyAndClean(LENGTH, BLOCK))
PARAMS = randomized(lambda key: NET.init(key, jnp.zeros((1, 2 * LENGTH), jnp.int32))["params"], 0.3)
NOISY, CLEAN = jax.random.randint(jax.random.key(1), (2, BATCH, LENGTH), 0, VOCAB)


def one_pass(net, noisy, clean):
    """Logits of the noisy half."""
    state, positions = jnp.concatenate([noisy, clean], axis=1), jnp.tile(jnp.arange(LENGTH), 2)
    features = net.apply({"params": PARAMS}, state, positions=positions, method="features")
    return net.apply({"params": PARAMS}, features[:, :LENGTH], method="head")


def test_cached_logits_equal_those_of_one_pass():
    expected = one_pass(NET, NOISY, CLEAN)
    net = NET.clone(mask=BlockCausal(BLOCK))
    cache = net.init_cache(BATCH, LENGTH)
    for start in range(0, LENGTH, BLOCK):
        part = slice(start, start + BLOCK)
        inputs = jnp.int32(start), cache
        logits, _ = net.apply({"params": PARAMS}, NOISY[:, part], *inputs, method="extend")
        np.testing.assert_allclose(logits, expected[:, part], atol=1e-4)
        _, cache = net.apply({"params": PARAMS}, CLEAN[:, part], *inputs, method="extend")
    assert np.abs(expected).max() > 1, "the comparison must not be of zeros"


def test_one_block_is_the_bidirectional_network():
    actual = one_pass(NET.clone(mask=NoisyAndClean(LENGTH, LENGTH)), NOISY, CLEAN)
    full = DiT(VOCAB, hidden=16, blocks=2, heads=2, cond_dim=8, dropout=0.0)
    np.testing.assert_allclose(actual, full.apply({"params": PARAMS}, NOISY), atol=1e-5)


@pytest.mark.parametrize("changed", range(3))
def test_a_block_reads_its_noisy_tokens_and_earlier_clean_ones(changed):
    part = slice(changed * BLOCK, (changed + 1) * BLOCK)

    def moved(noisy, clean):
        difference = jnp.abs(one_pass(NET, noisy, clean) - one_pass(NET, NOISY, CLEAN))
        return np.asarray(difference.max(axis=(0, 2)).reshape(-1, BLOCK).max(axis=1) > 0)

    other = (NOISY + 1) % VOCAB
    np.testing.assert_array_equal(moved(NOISY.at[:, part].set(other[:, part]), CLEAN), np.arange(3) == changed)
    np.testing.assert_array_equal(moved(NOISY, CLEAN.at[:, part].set(other[:, part])), np.arange(3) > changed)


def test_a_window_forgets_what_is_far():
    """With a window of two blocks, one layer deep, the third block does not read the first."""
    net = NET.clone(mask=BlockCausal(BLOCK, window=2 * BLOCK), blocks=1)
    params = {"params": jax.tree.map(lambda leaf: leaf, PARAMS)}
    params["params"] = params["params"] | {"blocks": jax.tree.map(lambda leaf: leaf[:1], PARAMS["blocks"])}

    def last_block(clean):
        cache = net.init_cache(BATCH, LENGTH)
        for start in (0, BLOCK):
            _, cache = net.apply(params, clean[:, start : start + BLOCK], jnp.int32(start), cache, method="extend")
        return net.apply(params, NOISY[:, 2 * BLOCK :], jnp.int32(2 * BLOCK), cache, method="extend")[0]

    base = last_block(CLEAN)
    np.testing.assert_array_equal(base, last_block(CLEAN.at[:, :BLOCK].set(0)))
    assert np.abs(base - last_block(CLEAN.at[:, BLOCK : 2 * BLOCK].set(0))).max() > 1e-3
