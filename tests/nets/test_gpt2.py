"""Properties of GPT-2 that do not need a reference implementation."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.nets.gpt2 import GPT2
from tests.checks import refused
from tests.weights import randomized

NET = GPT2(vocab_size=17, context=8, hidden=16, blocks=2, heads=2)


def test_causal_logits_are_features_times_the_embedding():
    tokens = jax.random.randint(jax.random.key(1), (2, 8), 0, 17)
    params = randomized(lambda key: NET.init(key, tokens))

    @jax.jit
    def run(tokens):
        return NET.apply(params, tokens), NET.apply(params, tokens, method="features")

    logits, features = run(tokens)
    np.testing.assert_allclose(logits, features @ params["params"]["embedding"].T, atol=1e-5)
    changed, _ = run(tokens.at[:, 4].set((tokens[:, 4] + 1) % 17))
    difference = np.abs(logits - changed).max((0, 2))
    assert difference[:4].max() == 0 and difference[4:].min() > 0
    with refused("9 tokens exceed the judge's 8"):
        NET.apply(params, jnp.zeros((1, 9), jnp.int32))
