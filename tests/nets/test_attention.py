"""All attention backends of this platform, compared with the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.attention import attend, choose, splash


def heads(length, seed=0, batch=2, head_dim=8):
    keys = jax.random.split(jax.random.key(seed), 3)
    return [jax.random.normal(key, (batch, length, 2, head_dim)) for key in keys]


def expected(query, key, value, causal):
    scores = np.einsum("blnh,bmnh->bnlm", query, key) / np.sqrt(query.shape[-1])
    if causal:
        scores = np.where(np.tril(np.ones(scores.shape[-2:], bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bnlm,bmnh->blnh", weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", ["plain", "xla", "auto"])
def test_backends_follow_the_formula(backend, causal):
    inputs = heads(12)
    actual = attend(*inputs, causal=causal, backend=backend)
    np.testing.assert_allclose(actual, expected(*map(np.asarray, inputs), causal), atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_splash_kernel_interpreted_gives_the_same_numbers(causal):
    inputs = heads(128, batch=1, head_dim=64)
    # The interpreter of kernels uses keys and broadcasting in ways that the checks of tests reject.
    with jax.numpy_rank_promotion("allow"):
        actual = jax.jit(lambda *x: splash(*x, causal=causal, interpret=True))(*inputs)
    np.testing.assert_allclose(actual, attend(*inputs, causal=causal, backend="plain"), atol=1e-4)


def test_bfloat16_softmax_is_done_in_float32():
    inputs = [x.astype(jnp.bfloat16) for x in heads(16)]
    exact = expected(*[np.asarray(x, np.float32) for x in inputs], False)
    actual = attend(*inputs, causal=False, backend="plain")
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(actual, np.float32), exact, atol=0.03)


def test_automatic_choice_and_refusals():
    assert choose("cpu", "float32", 8) == "plain"
    assert choose("gpu", "bfloat16", 1024) == "cudnn" and choose("gpu", "float32", 1024) == "xla"
    assert choose("tpu", "bfloat16", 1024) == "splash" and choose("tpu", "bfloat16", 100) == "xla"
    with pytest.raises(ValueError, match=r"net\.attention.*cudnn"):
        attend(*heads(8), causal=False, backend="flash")
    with pytest.raises(ValueError, match="divisible by 128"):
        attend(*heads(8), causal=False, backend="splash")
