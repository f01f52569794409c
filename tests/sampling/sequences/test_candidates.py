"""Length beams and re-ranking, compared with worked examples; beam search, compared with all sequences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu

from diffusion.sampling.sequences import lengths
from diffusion.sampling.sequences.beam import BeamSearch
from diffusion.sampling.sequences.rerank import agreement, bleu_mbr, judged
from diffusion.types import EncodedSource
from tests.checks import refused
from tests.weights import keys_of

WORDS = ["w1 w2 w3 w4 w5", "w1 w2 w3 w4 w6", "w9 w8 w7 w6 w5"]


def encoded(counts=(10, 3), favored=(128, 131)):
    """Return sources of these lengths, whose length heads favor these classes."""
    logits = np.zeros((len(counts), 256), np.float32)
    logits[:, 120] = 4.0
    logits[np.arange(len(counts)), favored] = 5.0
    mask = np.arange(12)[None] < np.asarray(counts)[:, None]
    return EncodedSource(jnp.zeros((len(counts), 12, 2)), jnp.asarray(mask), jnp.asarray(logits))


def test_length_beams():
    """Class 128 with a beam of 7 is the length of the source - 3 ... + 3, at least 2."""
    np.testing.assert_array_equal(lengths.around(encoded(), 7, 20), [np.arange(7, 14), np.arange(3, 10)])
    np.testing.assert_array_equal(lengths.around(encoded((3,), (128,)), 7, 5)[0], [2, 2, 2, 3, 4, 5, 5])


def test_candidates_are_lengths_times_seeds_with_separate_keys():
    keys, condition = lengths.candidates(keys_of(2), encoded(), jnp.array([[4, 5, 6], [2, 3, 4]]), 2, 8)
    np.testing.assert_array_equal(condition.target.sum(1), [4, 4, 5, 5, 6, 6, 2, 2, 3, 3, 4, 4])
    np.testing.assert_array_equal(condition.encoded.mask.sum(1), [10] * 6 + [3] * 6)
    data = np.asarray(jax.random.key_data(keys))
    assert len(np.unique(data, axis=0)) == 12
    alone, _ = lengths.candidates(keys_of([1]), encoded((3,), (131,)), jnp.array([[2, 3, 4]]), 2, 8)
    np.testing.assert_array_equal(jax.random.key_data(alone), data[6:])


def test_agreement_by_hand():
    np.testing.assert_allclose(agreement(WORDS), [38.778, 38.778, 10.682], atol=1e-3)
    assert bleu_mbr([WORDS, WORDS[::-1]]) == [0, 1]
    # A candidate is the reference; empty candidates are never selected, and are not references.
    short = sacrebleu.sentence_bleu(WORDS[0], ["w1 w2"], tokenize="none", use_effective_order=True).score
    assert agreement([WORDS[0], "w1 w2"])[1] == pytest.approx(short)
    np.testing.assert_allclose(agreement([*WORDS, " "])[:3], agreement(WORDS))
    assert agreement(["", "w1"]).tolist() == [-np.inf, 0.0]


def test_judge_selects_the_largest_score():
    queries = []

    def judge(sources, texts):
        queries.extend(zip(sources, texts, strict=True))
        return [len(text) for text in texts]

    assert judged(["a", "b"], [["x", "xxx"], ["yy", "", "y"]], judge) == [1, 0]
    assert queries == [("a", "x"), ("a", "xxx"), ("b", "yy"), ("b", ""), ("b", "y")]
    assert judged(["a"], [["", "x"]], lambda sources, texts: [0.0, -9.0]) == [1]
    with refused(r"sample.rerank: the judge gave \(1,\) scores for 2 candidates"):
        judged(["a"], [["x", "y"]], lambda sources, texts: [0.0])


TOKENS, END, START, PAD, LONGEST = 4, 3, 4, 9, 4


def markov_step(params, token, position, encoded, cache):
    """Return logits that depend on the last two tokens; the cache has the earlier one."""
    return params[position, cache[0], token], token[None]


def search(params, beam, penalty):
    beam_search = BeamSearch(
        markov_step, lambda size, length: jnp.full((1, size), START), TOKENS, START, END, PAD, beam, penalty
    )
    return jax.jit(lambda params, encoded: beam_search(params, encoded, LONGEST))(params, encoded())


@pytest.mark.parametrize("penalty", ["0.0", "1.0"])
def test_a_wide_beam_finds_the_best_of_all_sequences(penalty):
    """A beam of 1 is greedy decoding, which is not better."""
    params = np.random.default_rng(3).normal(0, 2, (LONGEST, TOKENS + 1, TOKENS + 1, TOKENS)).astype(np.float32)
    log_probs, scores = np.asarray(jax.nn.log_softmax(params, axis=-1)), {}
    for count in range(1, LONGEST + 1):
        for sequence in itertools.product(range(TOKENS), repeat=count):
            if END not in sequence[:-1] and (sequence[-1] == END or count == LONGEST):
                padded = (START, START, *sequence)
                scores[sequence] = sum(log_probs[i, padded[i], padded[i + 1], padded[i + 2]] for i in range(count))
    best = max(scores, key=lambda sequence: scores[sequence] / len(sequence) ** float(penalty))
    tokens, nats = search(params, 81, float(penalty))
    np.testing.assert_array_equal(tokens, [[*best, *[PAD] * (LONGEST - len(best))]] * 2)
    np.testing.assert_allclose(nats, scores[best], rtol=1e-4)
    assert float(search(params, 1, float(penalty))[1][0]) <= max(scores.values()) + 1e-5


def test_a_beam_of_none_is_refused():
    with refused(r"sample.beam: must be at least 1"):
        search(None, 0, 1.0)
