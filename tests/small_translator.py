"""A translator with a few matrices for tests of embedding diffusion, which compiles fast."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.codecs.embedding import EmbeddingCodec
from diffusion.types import EncodedSource

VOCAB, WIDTH, HIDDEN, CLASSES = 9, 4, 8, 256
SHAPES = {
    "table": (VOCAB + 2, WIDTH),
    "noisy": (WIDTH, HIDDEN),
    "memory": (WIDTH, HIDDEN),
    "source": (WIDTH, HIDDEN),
    "time": (1, HIDDEN),
    "out": (HIDDEN, WIDTH),
    "length": (WIDTH, CLASSES),
}
CODEC = EmbeddingCodec(lambda params: params["table"], VOCAB)


def weights(seed=0, scale=0.7):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(0, scale, shape), jnp.float32) for name, shape in SHAPES.items()}


def batch_of(size=3, length=5, seed=0):
    """Pairs of equal length, in which position i of the source conditions position i of the target."""
    rng = np.random.default_rng(seed)
    tokens, source = (jnp.asarray(rng.integers(0, VOCAB, (size, length))) for _ in range(2))
    weights = (jnp.arange(length)[None] < jnp.asarray(rng.integers(2, length + 1, (size, 1)))).astype(jnp.float32)
    return {"tokens": tokens, "weights": weights, "source": source, "source_weights": weights}


def noise_of(x, keys):
    if keys is None:
        return x
    return x * jax.vmap(lambda key: jax.random.bernoulli(key, 0.8, x.shape[1:]))(keys)


def encode(params, source, mask, keys=None):
    states = noise_of(jnp.take(CODEC.rows(params), source, axis=0), keys)
    pooled = jnp.sum(states * mask[..., None], axis=1)
    return EncodedSource(states, mask, pooled @ params["length"])


def denoise(params, noisy, time, cond=None, memory=None, *, keys=None):
    time = jnp.broadcast_to(time.reshape(len(noisy), -1), noisy.shape[:2])
    source = cond.encoded.states[:, : noisy.shape[1]] @ params["source"]
    hidden = noisy @ params["noisy"] + source + time[..., None] @ params["time"]
    if memory is not None:
        hidden = hidden + memory @ params["memory"]
    return noise_of(jnp.tanh(hidden), keys) @ params["out"]
