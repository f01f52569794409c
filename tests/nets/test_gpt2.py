"""Properties of GPT-2 that do not need a reference implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.gpt2 import GPT2

NET = GPT2(vocab_size=17, context=8, hidden=16, blocks=2, heads=2)


@pytest.fixture(scope="module")
def params():
    return jax.jit(NET.init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))


def test_later_tokens_do_not_reach_earlier_logits(params):
    tokens = jax.random.randint(jax.random.key(1), (2, 8), 0, 17)
    changed = tokens.at[:, 4].set((tokens[:, 4] + 1) % 17)
    apply = jax.jit(NET.apply)
    difference = np.abs(apply(params, tokens) - apply(params, changed)).max((0, 2))
    assert difference[:4].max() == 0 and difference[4:].min() > 0


def test_logits_are_features_times_the_embedding(params):
    tokens = jnp.arange(6)[None]
    features = NET.apply(params, tokens, method="features")
    assert features.shape == (1, 6, 16)
    np.testing.assert_allclose(NET.apply(params, tokens), features @ params["params"]["embedding"].T, atol=1e-5)


def test_too_long_sequences_raise(params):
    with pytest.raises(ValueError, match="9 tokens exceed the judge's 8"):
        NET.apply(params, jnp.zeros((1, 9), jnp.int32))
