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
DIT = DiT(TOKENS + 1, hidden=HIDDEN, blocks=2, heads=2, cond_dim=8)
DIGITS = DIT.clone(vocab_size=TOKENS, embedder=SubtokenEmbedding(CODEC.mask_id, 2, HIDDEN))
SIZE = dict(multipliers=(1, 2), res_blocks=1, attention_factors=(), head_channels=4, groups=2, dropout=0.0)
UNET = UNet((4, 4, 1), TOKENS, CODEC.mask_id, 2, channels=8, **SIZE)
# A network without self-conditioning, the number of symbols of its state, and the codes of all tokens.
CODES = CODEC.encode(jnp.arange(TOKENS)).reshape(1, -1)
NETS = {
    "dit": (DIT, TOKENS + 1, jnp.arange(TOKENS)[None]),
    "digits": (DIGITS, CODEC.base + 1, CODES),
    "unet": (UNET, CODEC.base + 1, CODES),
}


def states(name):
    """Return random noisy states with masks."""
    _, symbols, codes = NETS[name]
    return jax.random.randint(jax.random.key(1), (BATCH, LENGTH * codes.size // TOKENS), 0, symbols)


def weights_of(net, state):
    return randomized(lambda key: net.init(key, state)["params"])


def soft_embedding(net, params, name):
    """Return c E for random probabilities c."""
    c = jax.nn.softmax(2 * jax.random.normal(jax.random.key(2), (BATCH, LENGTH, TOKENS)))
    return c @ net.apply({"params": params}, NETS[name][2], method="token_table")[:TOKENS]


@pytest.mark.parametrize("name", NETS)
def test_new_adapter_is_bitwise_the_base_network_and_zeros_equal_none(name):
    base, state = NETS[name][0], states(name)
    net = base.clone(memory=True)
    params = weights_of(net, state)
    plain = jax.jit(lambda params, state: net.apply({"params": params}, state))
    conditioned = jax.jit(lambda params, state, memory: net.apply({"params": params}, state, memory=memory))
    memory = soft_embedding(net, params, name)

    # Bitwise equal to the base network for any self-conditioning input.
    zero, old = params | {"adapter": jax.tree.map(jnp.zeros_like, params["adapter"])}, dict(params)
    del old["adapter"]
    expected = np.asarray(jax.jit(base.apply)({"params": old}, state))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_array_equal(conditioned(zero, state, soft_embedding(net, zero, name)), expected)
    np.testing.assert_array_equal(plain(zero, state), expected)
    # Zeros equal None.
    np.testing.assert_array_equal(conditioned(params, state, jnp.zeros_like(memory)), plain(params, state))
    # The input of a trained adapter changes that example only, in any order of the batch.
    other = conditioned(params, state, memory)
    assert np.abs(other - expected).max() > 1e-3
    order = jnp.array([2, 0, 1])
    np.testing.assert_allclose(conditioned(params, state[order], memory[order]), other[order], rtol=1e-5, atol=1e-5)
    one = conditioned(params, state, memory.at[1:].set(0))
    np.testing.assert_allclose(one[0], other[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(one[1:], expected[1:], rtol=1e-5, atol=1e-5)


def test_an_adapter_starts_at_zero_and_adds_a_linear_map():
    """Compare x + W c E."""
    x, memory = (jax.random.normal(jax.random.key(seed), (2, 3, 4)) for seed in (0, 1))
    adapter = SelfConditioningAdapter(4)
    start = adapter.init(jax.random.key(2), x, memory)
    assert not start["params"]["linear"]["kernel"].any()
    matrix = jax.random.normal(jax.random.key(3), (4, 4))
    linear = {"params": {"linear": {"kernel": matrix}}}
    np.testing.assert_allclose(adapter.apply(linear, x, memory), x + memory @ matrix, rtol=1e-5, atol=1e-6)


def test_parameters_that_an_adapter_adds_to_the_published_network():
    """The small network of MDLM with the vocabulary of GPT-2 and a mask."""
    net = DiT(50258, **SIZES["small"], memory=True)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 169_627_218 + 589_824
