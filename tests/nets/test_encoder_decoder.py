"""The encoder-decoder over embeddings: padding, times, dropout, gradients, and the cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.recipes.pairs import DIFFORMER, DINOISER
from diffusion.nets.encoder_decoder import EncoderDecoder
from diffusion.rng import example_keys
from diffusion.types import SequenceCondition
from tests.weights import randomized

VOCAB, BATCH, SOURCE, TARGET, LATENT = 11, 2, 5, 6, 4
SMALL = dict(latent=LATENT, hidden=8, feed_forward=16, heads=2, encoder_blocks=1, decoder_blocks=2, positions=8)
NETS = {
    "difformer": EncoderDecoder(VOCAB, **DIFFORMER | SMALL),
    "dinoiser": EncoderDecoder(VOCAB, **DINOISER | SMALL, length_classes=9),
    "joint": EncoderDecoder(VOCAB, **SMALL, kind="joint"),
}
CAUSAL = EncoderDecoder(VOCAB, **SMALL, kind="causal")
KEYS = example_keys(jax.random.key(3), jnp.arange(BATCH))


def data(seed=0):
    rng = np.random.default_rng(seed)
    source = jnp.asarray(rng.integers(0, VOCAB, (BATCH, SOURCE)))
    noisy, memory = (jnp.asarray(rng.normal(size=(BATCH, TARGET, LATENT)), jnp.float32) for _ in range(2))
    source_mask = jnp.arange(SOURCE)[None] < jnp.array([[SOURCE], [3]])
    target_mask = jnp.arange(TARGET)[None] < jnp.array([[4], [TARGET]])
    return source, source_mask, noisy, memory, target_mask


@functools.cache
def params_of(name):
    net = NETS.get(name, CAUSAL)
    tokens = jnp.zeros((1, 2), jnp.int32)
    return randomized(lambda key: net.init(key, tokens, tokens, method="start"), scale=0.4)


@functools.cache
def compiled(name):
    net = NETS[name]

    def run(params, source, source_mask, noisy, memory, target_mask, time, keys):
        encoded = net.apply(params, source, source_mask, None if keys is None else keys, method="encode")
        clean = net.apply(params, noisy, time, SequenceCondition(encoded, target_mask), memory, keys=keys)
        return clean, encoded.lengths

    return jax.jit(run)


def run(name, source, source_mask, noisy, memory, target_mask, time=None, keys=None):
    time = jnp.full((BATCH, TARGET), 0.5) if time is None else time
    return compiled(name)(params_of(name), source, source_mask, noisy, memory, target_mask, time, keys)


@pytest.mark.parametrize("name", NETS)
def test_padding_does_not_change_other_positions(name):
    source, source_mask, noisy, memory, target_mask = data()
    clean, lengths = run(name, source, source_mask, noisy, memory, target_mask)
    other_source, _, other_noisy, other_memory, _ = data(1)
    changed = [
        jnp.where(source_mask, source, other_source),
        source_mask,
        jnp.where(target_mask[..., None], noisy, other_noisy),
        jnp.where(target_mask[..., None], memory, other_memory),
        target_mask,
        jnp.where(target_mask, 0.5, 0.9),
    ]
    assert (changed[0] != source).any()
    again, other_lengths = run(name, *changed)
    np.testing.assert_array_equal(np.asarray(again)[target_mask], np.asarray(clean)[target_mask])
    np.testing.assert_array_equal(other_lengths, lengths)
    # Positions without padding have an effect, in the source, the state, the self-conditioning input and the time.
    for index, other in ((0, other_source), (2, other_noisy), (3, other_memory), (5, jnp.full((BATCH, TARGET), 0.3))):
        moved = [*changed[:index], other, *changed[index + 1 :]]
        assert np.abs(np.asarray(run(name, *moved)[0] - clean)[target_mask]).max() > 1e-3


@pytest.mark.parametrize("name", NETS)
def test_equal_times_per_position_equal_one_time_per_example(name):
    arrays = data()
    whole, _ = run(name, *arrays, jnp.full((BATCH, TARGET), 0.7))
    one, _ = run(name, *arrays, jnp.full(BATCH, 0.7))
    np.testing.assert_array_equal(whole, one)
    mixed, _ = run(name, *arrays, jnp.full((BATCH, TARGET), 0.7).at[:, 0].set(0.2))
    assert not np.array_equal(mixed, whole)


def test_dropout_depends_on_the_key_of_the_example():
    arrays = data()
    clean, _ = run("difformer", *arrays)
    with_keys, _ = run("difformer", *arrays, keys=KEYS)
    other = example_keys(jax.random.key(3), jnp.array([0, 7]))
    second, _ = run("difformer", *arrays, keys=other)
    assert not np.allclose(with_keys, clean)
    np.testing.assert_array_equal(second[0], with_keys[0])
    assert not np.allclose(second[1], with_keys[1])


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
    encoded = jax.jit(lambda params: CAUSAL.apply(params, source, source_mask, method="encode"))(params)
    whole = jax.jit(lambda tokens: CAUSAL.apply(params, tokens, encoded, method="next_logits"))
    logits = whole(tokens)

    def read(cache, column):
        logits, cache = CAUSAL.apply(params, *column, encoded, cache, method="step")
        return cache, logits

    cache = CAUSAL.init_cache(BATCH, TARGET)
    _, steps = jax.jit(lambda cache: jax.lax.scan(read, cache, (tokens.T, jnp.arange(TARGET))))(cache)
    np.testing.assert_allclose(steps.swapaxes(0, 1), logits, atol=2e-5)
    later = whole(tokens.at[:, 3].set((tokens[:, 3] + 1) % VOCAB))
    np.testing.assert_array_equal(later[:, :3], logits[:, :3])
    assert not np.allclose(later[:, 3:], logits[:, 3:])


def shapes_of(net, length=2):
    tokens = jnp.zeros((1, length), jnp.int32)
    return jax.eval_shape(lambda: net.init(jax.random.key(0), tokens, tokens, method="start"))


def test_invalid_settings_raise():
    net = NETS["difformer"]
    for fields, message in ((dict(heads=3), "net.heads: 3 heads"), (dict(remat="some"), "net.remat: unknown")):
        with pytest.raises(ValueError, match=message):
            shapes_of(net.clone(**fields))
    with pytest.raises(ValueError, match=r"net.positions: 9 tokens exceed 8"):
        shapes_of(net, length=9)


def test_the_published_sizes():
    def count(settings):
        return sum(leaf.size for leaf in jax.tree.leaves(shapes_of(EncoderDecoder(10_000, **settings))))

    # Both have 6 + 6 layers of widths 512 and 1,024, 2.1 and 3.2 million each; the rest are input and output layers.
    assert count(DIFFORMER) == 36_301_568
    assert count(DINOISER) == 33_599_504
