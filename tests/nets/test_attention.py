"""All attention backends of this platform under every mask, compared with the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.attention import attend, choose, splash
from diffusion.nets.attention_masks import BlockCausal, Causal, Full, NoisyAndClean

LENGTH = 12
# Masks, and whether query q reads key k.
MASKS = {
    Full(): lambda q, k: True,
    Causal(): lambda q, k: k <= q,
    BlockCausal(4): lambda q, k: k // 4 <= q // 4,
    BlockCausal(2, window=6): lambda q, k: q // 2 - 3 < k // 2 <= q // 2,
    NoisyAndClean(6, 2): lambda q, k: (
        (k // 2 == q // 2 if k < 6 else (k - 6) // 2 < q // 2) if q < 6 else k >= 6 and k // 2 <= q // 2
    ),
}
PADDING = np.arange(LENGTH)[None, None] < np.array([7, LENGTH])[:, None, None]


def heads(length, seed=0, batch=2, head_dim=8):
    keys = jax.random.split(jax.random.key(seed), 3)
    return [jax.random.normal(key, (batch, length, 2, head_dim)) for key in keys]


def expected(query, key, value, allowed):
    scores = np.einsum("blnh,bmnh->bnlm", query, key) / np.sqrt(query.shape[-1])
    scores = np.where(allowed[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bnlm,bmnh->blnh", weights / weights.sum(-1, keepdims=True), value)


def table(mask, length=LENGTH):
    return np.array([[[MASKS[mask](q, k) for k in range(length)] for q in range(length)]])


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("backend", ["plain", "xla", "auto"])
def test_backends_follow_the_formula(backend, mask):
    inputs = heads(LENGTH)
    actual = attend(*inputs, mask, backend=backend)
    np.testing.assert_allclose(actual, expected(*map(np.asarray, inputs), table(mask)), atol=1e-5)


@pytest.mark.parametrize("backend", ["plain", "xla"])
def test_padding_and_cached_keys(backend):
    query, key, value = heads(LENGTH)
    padded = attend(query, key, value, jnp.asarray(PADDING), backend=backend)
    np.testing.assert_allclose(padded, expected(*map(np.asarray, (query, key, value)), PADDING), atol=1e-5)
    for mask in (Causal(), BlockCausal(4), BlockCausal(2, window=6)):
        cached = attend(query[:, 4:8], key, value, mask, positions=4 + jnp.arange(4), backend=backend)
        np.testing.assert_allclose(cached, attend(query, key, value, mask)[:, 4:8], atol=1e-5)


@pytest.mark.parametrize("mask", [Full(), Causal(), BlockCausal(16), NoisyAndClean(64, 16)], ids=str)
def test_splash_kernel_interpreted_gives_the_same_numbers(mask):
    inputs = heads(128, batch=1, head_dim=64)
    # The interpreter of kernels uses keys and broadcasting in ways that the checks of tests reject.
    with jax.numpy_rank_promotion("allow"):
        actual = jax.jit(lambda *x: splash(*x, mask, interpret=True))(*inputs)
    np.testing.assert_allclose(actual, attend(*inputs, mask, backend="plain"), atol=1e-4)


def test_bfloat16_softmax_is_done_in_float32():
    inputs = [x.astype(jnp.bfloat16) for x in heads(16)]
    exact = expected(*[np.asarray(x, np.float32) for x in inputs], np.ones((1, 16, 16), bool))
    actual = attend(*inputs, backend="plain")
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(actual, np.float32), exact, atol=0.03)


def test_automatic_choice_and_refusals():
    assert choose("cpu", "float32", 8) == "plain"
    assert choose("gpu", "bfloat16", 1024) == "cudnn" and choose("gpu", "float32", 1024) == "xla"
    assert choose("tpu", "bfloat16", 1024) == "splash" and choose("tpu", "bfloat16", 100) == "xla"
    with pytest.raises(ValueError, match=r"net\.attention.*cudnn"):
        attend(*heads(8), backend="flash")
    with pytest.raises(ValueError, match="divisible by 128"):
        attend(*heads(8), backend="splash")
    with pytest.raises(ValueError, match="with padding use one of auto, plain, xla"):
        attend(*heads(LENGTH), jnp.asarray(PADDING), backend="splash")
