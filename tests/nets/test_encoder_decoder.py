"""The encoder-decoder over embeddings: padding, times, dropout, gradients, and the cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.recipes.pairs import DIFFORMER, DINOISER
from diffusion.nets.encoder_decoder import EncoderDecoder
from diffusion.types import SequenceCondition
from tests.checks import refused
from tests.weights import keys_of, randomized

VOCAB, BATCH, SOURCE, TARGET, LATENT = 11, 2, 5, 6, 4
SMALL = dict(latent=LATENT, hidden=8, feed_forward=16, heads=2, encoder_blocks=1, decoder_blocks=2, positions=8)
NETS = {
    "difformer": EncoderDecoder(VOCAB, **DIFFORMER | SMALL),
    "dinoiser": EncoderDecoder(VOCAB, **DINOISER | SMALL, length_classes=9),
    "joint": EncoderDecoder(VOCAB, **SMALL, kind="joint"),
}
CAUSAL = EncoderDecoder(VOCAB, **SMALL, kind="causal")


def data(seed=0):
    """Return a source and its mask, latents, a self-conditioning input, the target's mask, and times."""
    rng = np.random.default_rng(seed)
    source, (noisy, memory) = rng.integers(0, VOCAB, (BATCH, SOURCE)), rng.normal(size=(2, BATCH, TARGET, LATENT))
    source_mask = np.arange(SOURCE) < np.array([[SOURCE], [3]])
    target_mask = np.arange(TARGET) < np.array([[4], [TARGET]])
    noisy, memory, time = (np.float32(values) for values in (noisy, memory, np.full((BATCH, TARGET), 0.5)))
    return [jnp.asarray(values) for values in (np.int32(source), source_mask, noisy, memory, target_mask, time)]


@functools.cache
def params_of(name):
    net = NETS.get(name, CAUSAL)
    tokens = jnp.zeros((1, 2), jnp.int32)
    return randomized(lambda key: net.init(key, tokens, tokens, method="start"), scale=0.4)


@functools.partial(jax.jit, static_argnums=0)
def apply(net, params, source, source_mask, noisy, memory, target_mask, time, keys):
    """Return the clean estimate and the logits of the length."""
    encoded = net.apply(params, source, source_mask, keys, method="encode")
    clean = net.apply(params, noisy, time, SequenceCondition(encoded, target_mask), memory, keys=keys)
    return clean, encoded.lengths


def run(name, *arrays, keys=None):
    return jax.device_get(apply(NETS[name], params_of(name), *arrays, keys))


@pytest.mark.parametrize("name", NETS)
def test_padding_does_not_change_other_positions(name):
    arrays, other = data(), data(1)
    source_mask, target_mask = arrays[1], arrays[4]
    masks = (source_mask, None, target_mask[..., None], target_mask[..., None], None, target_mask)
    other[5] = jnp.full((BATCH, TARGET), 0.9)
    changed = [
        values if mask is None else jnp.where(mask, values, else_)
        for mask, values, else_ in zip(masks, arrays, other, strict=True)
    ]
    assert (changed[0] != arrays[0]).any()
    (clean, lengths), (again, other_lengths) = run(name, *arrays), run(name, *changed)
    np.testing.assert_array_equal(again[target_mask], clean[target_mask])
    np.testing.assert_array_equal(other_lengths, lengths)
    # Positions without padding have an effect, in the source, the state, the self-conditioning input and the time.
    for index in (0, 2, 3, 5):
        moved, _ = run(name, *changed[:index], other[index], *changed[index + 1 :])
        assert np.abs(moved - clean)[target_mask].max() > 1e-3


def test_equal_times_per_position_equal_one_time_per_example():
    *arrays, time = data()
    (whole, _), (one, _) = (run("joint", *arrays, values) for values in (time, time[:, 0]))
    np.testing.assert_array_equal(whole, one)


def test_dropout_depends_on_the_key_of_the_example():
    arrays = data()
    first, second, clean = (run("difformer", *arrays, keys=keys)[0] for keys in (keys_of(2), keys_of([0, 7]), None))
    assert not np.allclose(first, clean)
    np.testing.assert_array_equal(second[0], first[0])
    assert not np.allclose(second[1], first[1])


def test_gradient_of_the_length_head_may_stop_at_the_encoder():
    source, source_mask, *_ = data()
    params = params_of("difformer")
    tangent = jax.tree.map(jnp.zeros_like, params)
    tangent["params"]["embedding"] = jnp.ones_like(params["params"]["embedding"])

    @jax.jit
    def change(params):
        """Return the gradient of the length logits with respect to the embeddings."""
        nets = [NETS["difformer"].clone(length_gradient=reaches) for reaches in (True, False)]
        runs = [lambda params, net=net: net.apply(params, source, source_mask, method="encode").lengths for net in nets]
        return [jax.jvp(run, (params,), (tangent,)) for run in runs]

    (lengths, moved), (same, still) = change(params)
    np.testing.assert_array_equal(lengths, same)
    assert np.abs(np.asarray(moved)).max() > 1e-3
    np.testing.assert_array_equal(still, 0)


def test_cache_gives_the_logits_of_the_whole_sequence_and_is_causal():
    source, source_mask, *_ = data()
    params = params_of("causal")
    tokens = jnp.asarray(np.random.default_rng(2).integers(0, VOCAB, (BATCH, TARGET)))

    @jax.jit
    def logits(tokens):
        """Return the logits of the whole sequence, and those with a cache."""
        encoded = CAUSAL.apply(params, source, source_mask, method="encode")

        def read(cache, column):
            logits, cache = CAUSAL.apply(params, *column, encoded, cache, method="step")
            return cache, logits

        _, steps = jax.lax.scan(read, CAUSAL.init_cache(BATCH, TARGET), (tokens.T, jnp.arange(TARGET)))
        return CAUSAL.apply(params, tokens, encoded, method="next_logits"), steps.swapaxes(0, 1)

    whole, steps = logits(tokens)
    np.testing.assert_allclose(steps, whole, atol=2e-5)
    later, _ = logits(tokens.at[:, 3].set((tokens[:, 3] + 1) % VOCAB))
    np.testing.assert_array_equal(later[:, :3], whole[:, :3])
    assert not np.allclose(later[:, 3:], whole[:, 3:])


def shapes_of(net, length=2):
    tokens = jnp.zeros((1, length), jnp.int32)
    return jax.eval_shape(lambda: net.init(jax.random.key(0), tokens, tokens, method="start"))


def test_invalid_settings_raise():
    net = NETS["difformer"]
    for fields, message in ((dict(heads=3), "net.heads: 3 heads"), (dict(remat="some"), "net.remat: unknown")):
        with refused(message):
            shapes_of(net.clone(**fields))
    with refused("net.positions: 9 tokens exceed 8"):
        shapes_of(net, length=9)


def test_the_published_sizes():
    def count(settings):
        return sum(leaf.size for leaf in jax.tree.leaves(shapes_of(EncoderDecoder(10_000, **settings))))

    # Both have 6 + 6 layers of widths 512 and 1,024, 2.1 and 3.2 million each; the rest are input and output layers.
    assert count(DIFFORMER) == 36_301_568
    assert count(DINOISER) == 33_599_504
