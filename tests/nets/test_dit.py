"""Properties of the diffusion transformer that do not need a reference implementation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets import gpt2
from diffusion.nets.attention_masks import Causal
from diffusion.nets.dit import SIZES, DiT
from tests.weights import randomized

VOCAB, LENGTH, BATCH = 19, 8, 3
NET = DiT(VOCAB, hidden=16, blocks=3, heads=2, cond_dim=8)
CAUSAL = NET.clone(mask=Causal(), adaln=False)


@pytest.fixture(scope="module")
def tokens():
    return jax.random.randint(jax.random.key(1), (BATCH, LENGTH), 0, VOCAB)


@pytest.fixture(scope="module")
def initial():
    return jax.jit(NET.init)(jax.random.key(0), jnp.zeros((1, LENGTH), jnp.int32))


@pytest.fixture(scope="module")
def params():
    return randomized(lambda key: NET.init(key, jnp.zeros((1, LENGTH), jnp.int32)), 0.3)


@pytest.fixture(scope="module")
def causal_params():
    return randomized(lambda key: CAUSAL.init(key, jnp.zeros((1, LENGTH), jnp.int32)), 0.3)


@pytest.fixture(scope="module")
def sigma():
    return jnp.array([0.0, 0.7, 2.0])


logits = jax.jit(NET.apply)


@jax.jit
def with_dropout(params, tokens, sigma, keys):
    return NET.apply(params, tokens, sigma, keys=keys)


@jax.jit
def causal_logits(params, tokens):
    return CAUSAL.apply(params, tokens)


def count(model):
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 8), jnp.int32)))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_parameter_counts_are_the_published_ones():
    assert count(DiT(50258, **SIZES["small"])) == 169_627_218
    assert count(DiT(50259, **SIZES["small"])) == 169_628_755
    assert count(gpt2.GPT2(**gpt2.SIZES["small"])) == 124_439_808
    assert count(gpt2.GPT2(**gpt2.SIZES["large"])) == 774_030_080


def test_initial_network_gives_zero_logits_and_identity_blocks(initial, tokens, sigma):
    assert not np.any(logits(initial, tokens, sigma)), "the zero head makes the first prediction uniform"
    x = NET.apply(initial, tokens, method="embed")
    np.testing.assert_array_equal(NET.apply(initial, x, sigma, method="trunk"), x)


def test_initial_weights_are_uniform(initial):
    for weight, fan_in in [
        (initial["params"]["embedding"], 16),
        (initial["params"]["blocks"]["mlp_out"]["kernel"], 64),
        (initial["params"]["blocks"]["mlp_in"]["bias"], 16),
        (initial["params"]["time_embedder"]["first"]["kernel"], 256),
    ]:
        bound = fan_in**-0.5
        assert 0.8 * bound < np.abs(weight).max() <= bound
        assert abs(np.std(weight) / bound - 3**-0.5) < 0.1
    kernels = initial["params"]["blocks"]["qkv"]["kernel"]
    assert not np.allclose(kernels[0], kernels[1]), "each block draws its own weights"


def test_pieces_compose_to_the_whole(params, tokens, sigma):
    x = NET.apply(params, tokens, method="embed")
    by_pieces = NET.apply(params, NET.apply(params, x, sigma, method="trunk"), sigma, method="head")
    np.testing.assert_allclose(by_pieces, NET.apply(params, tokens, sigma), atol=1e-5)


def test_noise_level_matters_and_none_means_zero(params, tokens, sigma):
    base = logits(params, tokens, sigma)
    shifted = logits(params, tokens, sigma.at[1].add(1.0))
    assert np.abs(base - shifted)[1].max() > 1e-3
    np.testing.assert_allclose(base[jnp.array([0, 2])], shifted[jnp.array([0, 2])], atol=1e-6)
    np.testing.assert_allclose(NET.apply(params, tokens), logits(params, tokens, jnp.zeros(BATCH)), atol=1e-5)


def test_positions_are_relative_but_not_ignored(params, tokens, sigma):
    """With rotary positions a permutation of tokens does not permute the logits."""
    flipped = logits(params, tokens[:, ::-1], sigma)[:, ::-1]
    assert np.abs(flipped - logits(params, tokens, sigma)).max() > 1e-3


def test_bidirectional_net_reads_later_tokens_and_causal_net_does_not(params, causal_params, tokens, sigma):
    changed = tokens.at[:, 5].set((tokens[:, 5] + 1) % VOCAB)
    difference = np.abs(logits(params, changed, sigma) - logits(params, tokens, sigma)).max((0, 2))
    assert difference.min() > 1e-4
    difference = np.abs(causal_logits(causal_params, changed) - causal_logits(causal_params, tokens)).max((0, 2))
    assert difference[:5].max() == 0 and difference[5:].min() > 1e-4


def test_decoding_with_a_cache_equals_the_full_forward_pass(causal_params, tokens):
    full = causal_logits(causal_params, tokens)
    decode = jax.jit(functools.partial(CAUSAL.apply, method="decode"))
    cache, steps = CAUSAL.init_cache(BATCH, LENGTH), []
    for position in range(LENGTH):
        step, cache = decode(causal_params, tokens[:, position], jnp.int32(position), cache)
        steps.append(step)
    np.testing.assert_allclose(jnp.stack(steps, 1), full, atol=1e-5)

    extend = functools.partial(CAUSAL.apply, method="extend")
    first, cache = extend(causal_params, tokens[:, :5], jnp.int32(0), CAUSAL.init_cache(BATCH, LENGTH))
    rest, _ = extend(causal_params, tokens[:, 5:], jnp.int32(5), cache)
    np.testing.assert_allclose(jnp.concatenate([first, rest], 1), full, atol=1e-5)


def test_dropout_of_an_example_depends_on_its_key_only(params, tokens, sigma):
    keys = jax.random.split(jax.random.key(3), BATCH)
    together = with_dropout(params, tokens, sigma, keys)
    for index in range(BATCH):
        one = slice(index, index + 1)
        alone = with_dropout(params, tokens[one], sigma[one], keys[one])
        np.testing.assert_allclose(alone, together[one], atol=1e-5)
    np.testing.assert_array_equal(together, with_dropout(params, tokens, sigma, keys))
    assert np.abs(together - logits(params, tokens, sigma)).max() > 1e-2
    others = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    assert np.abs(together - with_dropout(params, tokens, sigma, others)).max() > 1e-2


@pytest.mark.parametrize("policy", ["full", "dots"])
def test_rematerialization_and_unrolling_do_not_change_gradients(policy, params, tokens, sigma):
    keys = jax.random.split(jax.random.key(3), BATCH)

    def gradient(model):
        def loss(params):
            return jnp.mean(jnp.square(model.apply(params, tokens, sigma, keys=keys)))

        return jax.jit(jax.grad(loss))(params)

    again = gradient(NET.clone(remat=policy, unroll=3 if policy == "dots" else 1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradient(NET), again)


def test_bfloat16_stays_near_float32(params, tokens, sigma):
    low = NET.clone(dtype="bfloat16").apply(params, tokens, sigma)
    assert low.dtype == jnp.bfloat16
    exact = logits(params, tokens, sigma)
    assert np.abs(low.astype(jnp.float32) - exact).max() < 0.05 * np.abs(exact).max()


def test_activations_are_split_over_the_batch_axes_of_a_mesh(params, tokens, sigma):
    if jax.device_count() < 4:
        pytest.skip("needs four devices")
    axes = (jax.sharding.AxisType.Auto,) * 3
    mesh = jax.make_mesh((2, 2, 1), ("data", "fsdp", "model"), axis_types=axes, devices=jax.devices()[:4])
    four = jnp.concatenate([tokens, tokens[:1]]), jnp.concatenate([sigma, sigma[:1]])
    with jax.set_mesh(mesh):
        lowered = jax.jit(NET.apply).lower(params, *four).as_text()
        split = jax.jit(NET.apply)(params, *four)
        odd = jax.jit(NET.apply)(params, tokens, sigma)
    assert '{"data", "fsdp"}' in lowered or "devices=[4,1,1]" in lowered
    np.testing.assert_allclose(split[:BATCH], logits(params, tokens, sigma), atol=1e-5)
    np.testing.assert_allclose(odd, logits(params, tokens, sigma), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "field"), [({"heads": 3}, "net.heads"), ({"remat": "some"}, "net.remat"), ({"attention": "x"}, "net.a")]
)
def test_bad_sizes_name_the_field(change, field, params, tokens):
    with pytest.raises(ValueError, match=field):
        NET.clone(**change).apply(params, tokens)
    with pytest.raises(ValueError, match=r"net\.mask"):
        NET.apply(params, jnp.zeros(1, jnp.int32), jnp.int32(0), NET.init_cache(1, 4), method="decode")
