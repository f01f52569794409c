"""Sub-tokens that may follow others: a worked example, a simple reference, and probabilities that sum to 1."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtoken_prefixes import continuations, prefixes, restrict
from diffusion.codecs.subtokens import SubtokenCodec, shuffled_codec
from diffusion.objectives.autoregressive import next_token_log_probs
from diffusion.oracles.tables import random_denoiser
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.schedules.masking import Linear

# 0 (0,0), 1 (0,1), 2 (0,2), 3 (1,0), 4 (1,1); (1,2) and (2,.) encode no token.
CODEC = SubtokenCodec(5, 2)
CODECS = [CODEC, SubtokenCodec(5, 3), shuffled_codec(5, 2, 3, every_code=True), SubtokenCodec(4, 2)]


def test_worked_example():
    """Rows of the table: the empty prefix, then those of one sub-token."""
    np.testing.assert_array_equal(continuations(CODEC), np.array([[1, 1, 0], [1, 1, 1], [1, 1, 0], [0, 0, 0]], bool))
    # Two tokens (1,0) and (0,2), shifted right; the start symbol is 3.
    np.testing.assert_array_equal(prefixes(CODEC, np.array([[3, 1, 0, 0]])), [[0, 2, 0, 1]])


@pytest.mark.parametrize("codec", CODECS)
def test_a_prefix_is_continued_as_the_codes_of_tokens_are(codec):
    codes, base = {tuple(code) for code in codec.table.T}, codec.base
    for place in range(codec.digits):
        for prefix in product(range(base), repeat=place):
            inputs = np.array([[base, *prefix, *[0] * (codec.digits - 1 - place)]])
            allowed = continuations(codec)[int(prefixes(codec, inputs)[0, place])]
            expected = [any(code[: place + 1] == (*prefix, value) for code in codes) for value in range(base)]
            np.testing.assert_array_equal(allowed, expected)


@pytest.mark.parametrize("codec", CODECS[1:3])
def test_likelihoods_of_all_sequences_sum_to_one_with_the_filter_alone(codec):
    """For every causal network of sub-tokens, here one with arbitrary logits."""
    process, network = (
        PartialMaskedDiffusion(codec, Linear()),
        random_denoiser(jax.random.key(0), codec.base, causal=True),
    )
    sequences = np.array(list(product(range(5), repeat=2)), np.int32)

    def filtered(inputs, time):
        return restrict(codec, network(inputs, time), prefixes(codec, inputs))

    def total(denoise):
        return float(jax.jit(lambda: jnp.exp(next_token_log_probs(denoise, process, sequences).sum(axis=1)).sum())())

    assert total(filtered) == pytest.approx(1, abs=1e-5) and total(network) < 0.9
