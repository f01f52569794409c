"""The adapter of the self-conditioning input: equality with the base network at the start, and zero inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.nets.discrete_unet import UNet
from diffusion.nets.dit import SIZES, DiT
from diffusion.nets.self_conditioning_adapter import SelfConditioningAdapter
from diffusion.nets.subtoken_embedding import SubtokenEmbedding
from tests.weights import randomized

BATCH, LENGTH, TOKENS, HIDDEN = 3, 16, 11, 16
CODEC = SubtokenCodec(TOKENS, 2)
DIT = DiT(TOKENS, hidden=HIDDEN, blocks=1, heads=2, cond_dim=8, embedder=SubtokenEmbedding(CODEC.mask_id, 2, HIDDEN))
SIZE = dict(multipliers=(1,), res_blocks=1, attention_factors=(), head_channels=4, groups=2, dropout=0.0)
NETS = {"dit": DIT, "unet": UNet((4, 4, 1), TOKENS, CODEC.mask_id, 2, channels=8, **SIZE)}
STATE = jax.random.randint(jax.random.key(1), (BATCH, LENGTH * 2), 0, CODEC.base + 1)


@pytest.mark.parametrize("name", NETS)
def test_new_adapter_is_bitwise_the_base_network_and_zeros_equal_none(name):
    base = NETS[name]
    net = base.clone(memory=True)
    params = randomized(lambda key: net.init(key, STATE)["params"])
    zero = params | {"adapter": jax.tree.map(jnp.zeros_like, params["adapter"])}
    without = {part: leaves for part, leaves in params.items() if part != "adapter"}
    apply = jax.jit(lambda params, state, memory=None: net.apply({"params": params}, state, memory=memory))
    # The input is a soft embedding c E of random probabilities c.
    c = jax.nn.softmax(2 * jax.random.normal(jax.random.key(2), (BATCH, LENGTH, TOKENS)))
    codes = CODEC.encode(jnp.arange(TOKENS)).reshape(1, -1)
    memory = c @ net.apply({"params": params}, codes, method="token_table")[:TOKENS]

    # Bitwise equal to the base network for any self-conditioning input.
    expected = np.asarray(jax.jit(base.apply)({"params": without}, STATE))
    assert np.abs(expected).max() > 0.1
    for result in (apply(zero, STATE, memory), apply(zero, STATE), apply(params, STATE)):
        np.testing.assert_array_equal(result, expected)
    # Zeros equal None.
    np.testing.assert_array_equal(apply(params, STATE, jnp.zeros_like(memory)), expected)
    # The input of a trained adapter changes that example only, in any order of the batch.
    other, order = apply(params, STATE, memory), jnp.array([2, 0, 1])
    assert np.abs(other - expected).max() > 1e-3
    np.testing.assert_allclose(apply(params, STATE[order], memory[order]), other[order], rtol=1e-5, atol=1e-5)
    one = apply(params, STATE, memory.at[1:].set(0))
    np.testing.assert_allclose(one, np.concatenate([other[:1], expected[1:]]), rtol=1e-5, atol=1e-5)


def test_an_adapter_starts_at_zero_and_adds_a_linear_map():
    """Compare x + W c E, and count the parameters that it adds to the small network of MDLM."""
    x, memory = jax.random.normal(jax.random.key(0), (2, 2, 3, 4))
    adapter = SelfConditioningAdapter(4)
    params = adapter.init(jax.random.key(2), x, memory)
    assert not params["params"]["linear"]["kernel"].any()
    params["params"]["linear"]["kernel"] = matrix = np.arange(16, dtype=np.float32).reshape(4, 4)
    np.testing.assert_allclose(adapter.apply(params, x, memory), x + memory @ matrix, rtol=1e-5, atol=1e-5)
    net = DiT(50258, **SIZES["small"], memory=True)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 169_627_218 + 589_824
