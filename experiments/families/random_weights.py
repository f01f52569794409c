"""Random weights of published networks, for tests and timings, without a program that initializes each network."""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from diffusion.types import Params


def random_weights(init: Callable[..., Any], *inputs: Any, seed: int = 0, name: str = "") -> Params:
    """Parameters of the shapes of `init(key, *inputs)`, on the host.

    Kernels are N(0, 1 / fan in), scales of norms 1, biases 0, and other leaves N(0, 0.02^2). A leaf depends on the
    seed, the name of the network and its own path alone.
    """
    shapes = jax.eval_shape(init, jax.random.key(0), *inputs)

    def leaf(path: Any, like: Any) -> np.ndarray:
        place, kind = jax.tree_util.keystr(path), path[-1].key
        if kind in ("scale", "bias"):
            return np.full(like.shape, float(kind == "scale"), like.dtype)
        rng = np.random.default_rng([seed, zlib.crc32(f"{name}{place}".encode())])
        width = np.sqrt(1 / max(np.prod(like.shape[-4:-1] if len(like.shape) > 3 else like.shape[-2:-1]), 1))
        scale = width if kind == "kernel" else 0.02
        return (rng.standard_normal(like.shape, np.float32) * np.float32(scale)).astype(like.dtype)

    return jax.tree_util.tree_map_with_path(leaf, shapes)
