"""All attention backends of this platform under every mask, compared with the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.attention import attend, choose, splash
from diffusion.nets.attention_masks import Causal, Full
from diffusion.nets.block_masks import BlockCausal, NoisyAndClean
from tests.checks import refused

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


def heads(length, batch=2, head_dim=8):
    return list(np.random.default_rng(0).normal(size=(3, batch, length, 2, head_dim)).astype(np.float32))


def expected(query, key, value, allowed):
    scores = np.einsum("blnh,bmnh->bnlm", query, key) / np.sqrt(query.shape[-1])
    scores = np.where(allowed[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bnlm,bmnh->blnh", weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize("mask", [*MASKS, None], ids=str)
def test_backends_follow_the_formula(mask):
    """Under all masks and padding (None); a few queries at their positions read what those of the whole would."""
    places = range(LENGTH)
    allowed = np.array([[[MASKS[mask](q, k) for k in places] for q in places]]) if mask else PADDING
    exact = expected(*heads(LENGTH), allowed)

    @jax.jit
    def found(query, key, value):
        given = mask or jnp.asarray(PADDING)
        whole = [attend(query, key, value, given, backend=backend) for backend in ("plain", "xla", "auto")]
        options = [dict(positions=jnp.arange(4, 8), backend=backend) for backend in ("plain", "xla")] if mask else []
        return whole, [attend(query[:, 4:8], key, value, given, **each) for each in options]

    whole, cached = found(*heads(LENGTH))
    for result, rows in [(result, slice(None)) for result in whole] + [(result, slice(4, 8)) for result in cached]:
        np.testing.assert_allclose(result, exact[:, rows], atol=1e-5)


@pytest.mark.parametrize("mask", [Full(), Causal(), BlockCausal(16), NoisyAndClean(64, 16)], ids=str)
def test_splash_kernel_interpreted_gives_the_same_numbers(mask):
    inputs = heads(128, batch=1, head_dim=64)
    # The interpreter of kernels uses keys and broadcasting in ways that the checks of tests reject.
    with jax.numpy_rank_promotion("allow"):
        actual = jax.jit(lambda *x: splash(*x, mask, interpret=True))(*inputs)
    np.testing.assert_allclose(actual, jax.jit(lambda *x: attend(*x, mask, backend="plain"))(*inputs), atol=1e-4)


@pytest.mark.parametrize("mask", [Full(), Causal(), "padding"], ids=str)
def test_blocks_of_queries_give_the_same_numbers_and_gradients(mask):
    inputs, length = heads(128), 128
    given = mask if isinstance(mask, (Full, Causal)) else jnp.arange(length)[None, None] < jnp.array([[[7]], [[128]]])

    def numbers(backend):
        def total(*x):
            return jnp.sum(jnp.sin(attend(*x, given, backend=backend)))

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(*inputs)

    jax.tree.map(lambda *x: np.testing.assert_allclose(*x, rtol=1e-4, atol=1e-5), numbers("blocked"), numbers("plain"))
    with refused("blocked needs a length divisible by 64"):
        attend(*map(jnp.asarray, heads(LENGTH)), backend="blocked")


def test_bfloat16_softmax_is_done_in_float32():
    inputs = [jnp.asarray(x, jnp.bfloat16) for x in heads(LENGTH)]
    exact = expected(*[np.asarray(x, np.float32) for x in inputs], np.ones((1, LENGTH, LENGTH), bool))
    actual = attend(*inputs, backend="plain")
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(actual, np.float32), exact, atol=0.03)


def test_automatic_choice_and_refusals():
    assert choose("cpu", "float32", 8) == choose("cpu", "float32", 1025) == "plain"
    assert choose("cpu", "float32", 1024) == "blocked"
    assert choose("gpu", "bfloat16", 1024) == "cudnn" and choose("gpu", "float32", 1024) == "xla"
    assert choose("tpu", "bfloat16", 1024) == "splash" and choose("tpu", "bfloat16", 100) == "xla"
    inputs = [jnp.asarray(x) for x in heads(LENGTH)]
    for mask, backend, message in (
        ((), "flash", r"net\.attention.*cudnn"),
        ((), "splash", "divisible by 128"),
        ((jnp.asarray(PADDING),), "splash", "with padding use one of auto, plain, blocked, xla"),
    ):
        with refused(message):
            attend(*inputs, *mask, backend=backend)
