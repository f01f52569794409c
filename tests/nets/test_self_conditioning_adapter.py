"""Adapters of the self-conditioning input: equality with the base network at the start, and zero inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.nets.discrete_unet import UNet
from diffusion.nets.dit import SIZES, DiT
from diffusion.nets.self_conditioning_adapter import SelfConditioningAdapter
from diffusion.nets.subtoken_embedding import SubtokenEmbedding
from tests.checks import refused
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
EXACT = [("dit", "linear"), ("dit", "norm_linear"), ("dit", "table"), ("digits", "linear"), ("unet", "linear")]


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


@pytest.mark.parametrize(("name", "kind"), EXACT, ids=["-".join(pair) for pair in EXACT])
def test_new_adapter_is_bitwise_the_base_network_and_zeros_equal_none(name, kind):
    base, state = NETS[name][0], states(name)
    net = base.clone(memory=kind)
    params = weights_of(net, state)
    plain = jax.jit(lambda params, state: net.apply({"params": params}, state))
    conditioned = jax.jit(lambda params, state, memory: net.apply({"params": params}, state, memory=memory))
    memory = soft_embedding(net, params, name)

    # Bitwise equal to the base network for any self-conditioning input.
    zero, old = dict(params), dict(params)
    part = "table" if kind == "table" else "linear"
    zero["adapter"] = params["adapter"] | {part: jax.tree.map(jnp.zeros_like, params["adapter"][part])}
    del old["adapter"]
    expected = np.asarray(jax.jit(base.apply)({"params": old}, state))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_array_equal(conditioned(zero, state, soft_embedding(net, zero, name)), expected)
    np.testing.assert_array_equal(plain(zero, state), expected)
    # Zeros equal None for every adapter.
    np.testing.assert_array_equal(conditioned(params, state, jnp.zeros_like(memory)), plain(params, state))
    # The input of a trained adapter changes that example only, in any order of the batch.
    other = conditioned(params, state, memory)
    assert np.abs(other - expected).max() > 1e-3
    order = jnp.array([2, 0, 1])
    np.testing.assert_allclose(conditioned(params, state[order], memory[order]), other[order], rtol=1e-5, atol=1e-5)
    one = conditioned(params, state, memory.at[1:].set(0))
    np.testing.assert_allclose(one[0], other[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(one[1:], expected[1:], rtol=1e-5, atol=1e-5)


def test_new_concatenation_is_the_base_network_up_to_rounding_and_a_direct_sum_is_not():
    state = states("dit")
    params = weights_of(DIT, state)
    expected = jax.jit(DIT.apply)({"params": params}, state)
    memory = soft_embedding(DIT, params, "dit")
    conditioned = {}
    for kind, added in (("concat", {"adapter": {"kernel": jnp.eye(2 * HIDDEN, HIDDEN)}}), ("direct", {})):
        net = DIT.clone(memory=kind)
        shapes = jax.eval_shape(net.init, jax.random.key(0), state)["params"]
        assert jax.tree.map(jnp.shape, params | added) == jax.tree.map(jnp.shape, shapes)
        conditioned[kind] = jax.jit(net.apply)({"params": params | added}, state, memory=memory)
        none = jax.jit(net.apply)({"params": params | added}, state)
        np.testing.assert_allclose(none, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(conditioned["concat"], expected, rtol=1e-5, atol=1e-5)
    assert np.abs(conditioned["direct"] - expected).max() > 0.1


def test_initialization_of_adapters():
    """Linear maps and tables are zero, the scale of the norm is one, the concatenation [I; 0]; compare x + W c E."""
    x, memory = (jax.random.normal(jax.random.key(seed), (2, 3, 4)) for seed in (0, 1))
    starts = {}
    for kind in ("linear", "norm_linear", "table", "concat", "direct"):
        module = SelfConditioningAdapter(kind, 4, 5)
        starts[kind] = variables = module.init(jax.random.key(2), x, memory)
        start = module.apply(variables, x, memory)
        if kind not in ("table", "direct"):
            np.testing.assert_allclose(start, x, atol=1e-6)
    assert not starts["linear"]["params"]["linear"]["kernel"].any() and starts["direct"] == {}
    assert not starts["table"]["params"]["table"].any() and starts["table"]["params"]["table"].shape == (5, 4)
    assert (starts["norm_linear"]["params"]["norm"]["scale"] == 1).all()
    np.testing.assert_array_equal(starts["concat"]["params"]["kernel"], np.eye(8, 4))

    matrix = jax.random.normal(jax.random.key(3), (4, 4))
    linear = {"params": {"linear": {"kernel": matrix}}}
    np.testing.assert_allclose(
        SelfConditioningAdapter("linear", 4, 5).apply(linear, x, memory), x + memory @ matrix, rtol=1e-5, atol=1e-6
    )
    scale = jnp.arange(1.0, 5.0)
    normed = (memory - memory.mean(-1, keepdims=True)) / jnp.sqrt(memory.var(-1, keepdims=True) + 1e-5)
    norm_linear = {"params": {"linear": {"kernel": matrix}, "norm": {"scale": scale}}}
    np.testing.assert_allclose(
        SelfConditioningAdapter("norm_linear", 4, 5).apply(norm_linear, x, memory),
        x + (normed * scale[None, None]) @ matrix,
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("kind", "added"),
    [("linear", 589_824), ("norm_linear", 590_592), ("table", 38_598_144), ("concat", 1_179_648), ("direct", 0)],
)
def test_parameters_that_an_adapter_adds_to_the_published_network(kind, added):
    """The small network of MDLM with the vocabulary of GPT-2 and a mask."""
    net = DiT(50258, **SIZES["small"], memory=kind)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 169_627_218 + added


def test_unknown_adapters_raise_with_the_known_ones():
    with refused(r"memory\.adapter: unknown 'gate'; known: none, linear"):
        jax.eval_shape(DIT.clone(memory="gate").init, jax.random.key(0), states("dit"))
