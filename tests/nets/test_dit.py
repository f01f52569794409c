"""Properties of the diffusion transformer that do not need a reference implementation."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets import gpt2
from diffusion.nets.attention_masks import Causal
from diffusion.nets.dit import SIZES, DiT
from tests.weights import randomized

VOCAB, LENGTH, BATCH = 19, 8, 3
NET = DiT(VOCAB, hidden=16, blocks=2, heads=2, cond_dim=8)
CAUSAL = NET.clone(mask=Causal(), adaln=False)
TOKENS = jax.random.randint(jax.random.key(1), (BATCH, LENGTH), 0, VOCAB)
SIGMA, KEYS = jnp.array([0.0, 0.7, 2.0]), jax.random.split(jax.random.key(3), BATCH)
PARAMS, CAUSAL_PARAMS = (randomized(lambda key, net=net: net.init(key, TOKENS), 0.3) for net in (NET, CAUSAL))

run = jax.jit(NET.apply)


def logits(tokens=TOKENS, sigma=SIGMA, keys=None):
    return run(PARAMS, tokens, sigma, keys=keys)


def test_parameter_counts_are_the_published_ones():
    nets = [DiT(50258, **SIZES["small"]), DiT(50259, **SIZES["small"])]
    nets += [gpt2.GPT2(**gpt2.SIZES[name]) for name in ("small", "large")]
    shapes = [jax.eval_shape(lambda net=net: net.init(jax.random.key(0), TOKENS)) for net in nets]
    counts = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in shapes]
    assert counts == [169_627_218, 169_628_755, 124_439_808, 774_030_080]


def test_initial_network_gives_zero_logits_and_identity_blocks():
    """The zero head makes the first prediction uniform; other weights are uniform, and different in each block."""

    @jax.jit
    def start(key):
        params = NET.init(key, TOKENS)
        embedded = NET.apply(params, TOKENS, method="embed")
        through = NET.apply(params, TOKENS, SIGMA, method="features")
        return params["params"], embedded, through, NET.apply(params, TOKENS, SIGMA)

    initial, embedded, through, first = start(jax.random.key(0))
    assert not np.any(first)
    np.testing.assert_array_equal(through, embedded)
    for weight, fan_in in [
        (initial["embedding"], 16),
        (initial["blocks"]["mlp_out"]["kernel"], 64),
        (initial["blocks"]["mlp_in"]["bias"], 16),
        (initial["time_embedder"]["first"]["kernel"], 256),
    ]:
        bound = fan_in**-0.5
        assert 0.8 * bound < np.abs(weight).max() <= bound
        assert abs(np.std(weight) / bound - 3**-0.5) < 0.1
    kernels = initial["blocks"]["qkv"]["kernel"]
    assert not np.allclose(kernels[0], kernels[1])


def test_noise_level_matters_and_none_means_zero():
    base, shifted = logits(), logits(sigma=SIGMA.at[1].add(1.0))
    assert np.abs(base - shifted)[1].max() > 1e-3
    np.testing.assert_allclose(base[::2], shifted[::2], atol=1e-6)
    np.testing.assert_allclose(run(PARAMS, TOKENS), logits(sigma=jnp.zeros(BATCH)), atol=1e-5)


def test_positions_are_relative_but_not_ignored():
    """With rotary positions a permutation of tokens does not permute the logits."""
    assert np.abs(logits(TOKENS[:, ::-1])[:, ::-1] - logits()).max() > 1e-3


def test_bidirectional_net_reads_later_tokens_and_causal_net_does_not():
    """Decoding with a cache, of several tokens and then one by one, gives the logits of the whole pass."""
    changed = TOKENS.at[:, 5].set((TOKENS[:, 5] + 1) % VOCAB)
    assert np.abs(logits(changed) - logits()).max((0, 2)).min() > 1e-4

    @jax.jit
    def causal(tokens):
        def step(cache, inputs):
            step, cache = CAUSAL.apply(CAUSAL_PARAMS, *inputs, cache, method="decode")
            return cache, step

        start = jnp.int32(0), CAUSAL.init_cache(BATCH, LENGTH)
        features, cache = CAUSAL.apply(CAUSAL_PARAMS, tokens[:, :4], *start, method="extend")
        first = CAUSAL.apply(CAUSAL_PARAMS, features, method="logits")
        _, rest = jax.lax.scan(step, cache, (tokens[:, 4:].T, jnp.arange(4, LENGTH)))
        return CAUSAL.apply(CAUSAL_PARAMS, tokens), jnp.concatenate([first, rest.swapaxes(0, 1)], 1)

    (full, steps), (moved, _) = causal(TOKENS), causal(changed)
    difference = np.abs(full - moved).max((0, 2))
    assert difference[:5].max() == 0 and difference[5:].min() > 1e-4
    np.testing.assert_allclose(steps, full, atol=1e-5)


def test_dropout_of_an_example_depends_on_its_key_only():
    together, order = logits(keys=KEYS), jnp.array([2, 0, 1])
    np.testing.assert_allclose(logits(TOKENS[order], SIGMA[order], KEYS[order]), together[order], atol=1e-5)
    assert np.abs(together - logits()).max() > 1e-2
    moved = np.abs(together - logits(keys=KEYS.at[0].set(jax.random.key(4)))).max((1, 2))
    assert moved[0] > 1e-2 and (moved[1:] < 1e-5).all()


@cache
def gradient(**change):
    net = NET.clone(**change)
    return jax.jit(jax.grad(lambda params: jnp.mean(net.apply(params, TOKENS, SIGMA, keys=KEYS) ** 2)))(PARAMS)


@pytest.mark.parametrize("change", [dict(remat="full"), dict(remat="dots", unroll=2)], ids=str)
def test_rematerialization_and_unrolling_do_not_change_gradients(change):
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), gradient(**change), gradient())


def test_bfloat16_stays_near_float32():
    low, exact = jax.jit(NET.clone(dtype="bfloat16").apply)(PARAMS, TOKENS, SIGMA), logits()
    assert low.dtype == jnp.bfloat16
    assert np.abs(low.astype(jnp.float32) - exact).max() < 0.05 * np.abs(exact).max()


def test_activations_are_split_over_the_batch_axes_of_a_mesh():
    """A batch that does not divide over the axes is not split."""
    if jax.device_count() < 4:
        pytest.skip("needs four devices")
    axes = (jax.sharding.AxisType.Auto,) * 3
    mesh = jax.make_mesh((2, 2, 1), ("data", "fsdp", "model"), axis_types=axes, devices=jax.devices()[:4])
    four = jnp.concatenate([TOKENS, TOKENS[:1]]), jnp.concatenate([SIGMA, SIGMA[:1]])
    with jax.set_mesh(mesh):
        even, odd = (jax.jit(NET.apply).lower(PARAMS, *inputs) for inputs in (four, (TOKENS, SIGMA)))
        split = even.compile()(PARAMS, *four)
    marks = ('{"data", "fsdp"}', "devices=[4,1,1]")
    assert any(mark in even.as_text() for mark in marks) and not any(mark in odd.as_text() for mark in marks)
    np.testing.assert_allclose(split[:BATCH], logits(), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "field"), [({"heads": 3}, "net.heads"), ({"remat": "some"}, "net.remat"), ({"attention": "x"}, "net.a")]
)
def test_bad_sizes_name_the_field(change, field):
    with pytest.raises(ValueError, match=field):
        NET.clone(**change).apply(PARAMS, TOKENS)
    with pytest.raises(ValueError, match=r"net\.mask"):
        NET.apply(PARAMS, jnp.zeros(1, jnp.int32), jnp.int32(0), NET.init_cache(1, 4), method="decode")
