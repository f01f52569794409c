"""Length beams and re-ranking, compared with worked examples; beam search, compared with all sequences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu

from diffusion.rng import example_keys
from diffusion.sampling.sequences import lengths
from diffusion.sampling.sequences.beam import BeamSearch
from diffusion.sampling.sequences.rerank import agreement, bleu_mbr, judged
from diffusion.types import EncodedSource

WORDS = ["w1 w2 w3 w4 w5", "w1 w2 w3 w4 w6", "w9 w8 w7 w6 w5"]


def encoded(counts=(10, 3), favored=(128, 131), classes=256):
    mask = jnp.arange(12)[None] < jnp.asarray(counts)[:, None]
    logits = jnp.zeros((len(counts), classes)).at[jnp.arange(len(counts)), jnp.asarray(favored)].set(5.0)
    logits = logits.at[:, 120].set(4.0)
    return EncodedSource(jnp.zeros((len(counts), 12, 2)), mask, logits)


def test_length_beams():
    """Class 128 with a beam of 7 is the length of the source - 3 ... + 3, at least 2."""
    beam = np.asarray(lengths.around(encoded(), 7, 20))
    np.testing.assert_array_equal(beam[0], np.arange(7, 14))
    np.testing.assert_array_equal(beam[1], np.arange(3, 10))
    np.testing.assert_array_equal(lengths.around(encoded((3,), (128,)), 7, 5)[0], [2, 2, 2, 3, 4, 5, 5])


def test_candidates_are_lengths_times_seeds_with_separate_keys():
    keys = example_keys(jax.random.key(0), jnp.arange(2))
    candidate_keys, condition = lengths.candidates(keys, encoded(), jnp.array([[4, 5, 6], [2, 3, 4]]), 2, 8)
    np.testing.assert_array_equal(condition.target.sum(1), [4, 4, 5, 5, 6, 6, 2, 2, 3, 3, 4, 4])
    np.testing.assert_array_equal(condition.encoded.mask.sum(1), [10] * 6 + [3] * 6)
    assert len({tuple(row) for row in np.asarray(jax.random.key_data(candidate_keys)).tolist()}) == 12
    second = example_keys(jax.random.key(0), jnp.array([1]))
    alone, _ = lengths.candidates(second, encoded((3,), (131,)), jnp.array([[2, 3, 4]]), 2, 8)
    np.testing.assert_array_equal(jax.random.key_data(alone), jax.random.key_data(candidate_keys)[6:])


def test_agreement_by_hand():
    np.testing.assert_allclose(agreement(WORDS), [38.778, 38.778, 10.682], atol=1e-3)
    assert bleu_mbr([WORDS, WORDS[::-1]]) == [0, 1]
    pair = sacrebleu.sentence_bleu(WORDS[1], [WORDS[0]], tokenize="none").score
    assert pair == pytest.approx(66.874, abs=1e-3)
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
    with pytest.raises(ValueError, match=r"sample.rerank: the judge gave \(1,\) scores for 2 candidates"):
        judged(["a"], [["x", "y"]], lambda sources, texts: [0.0])


TOKENS, END, START, LONGEST = 4, 3, 4, 4


def markov_step(params, token, position, encoded, cache):
    """Return logits that depend on the last two tokens; the cache has the earlier one."""
    before = cache[0]
    return params[position, before, token], token[None]


@pytest.mark.parametrize("penalty", ["0.0", "1.0"])
def test_a_wide_beam_finds_the_best_of_all_sequences(penalty):
    params = jnp.asarray(np.random.default_rng(3).normal(0, 2, (LONGEST, TOKENS + 1, TOKENS + 1, TOKENS)), jnp.float32)
    log_probs = np.asarray(jax.nn.log_softmax(params, axis=-1))
    scores = {}
    for count in range(1, LONGEST + 1):
        for sequence in itertools.product(range(TOKENS), repeat=count):
            if END in sequence[:-1] or (sequence[-1] != END and count < LONGEST):
                continue
            padded = (START, START, *sequence)
            nats = sum(log_probs[i, padded[i], padded[i + 1], padded[i + 2]] for i in range(count))
            scores[sequence] = nats
    best = max(scores, key=lambda sequence: scores[sequence] / len(sequence) ** float(penalty))

    def search(beam):
        beam_search = BeamSearch(
            markov_step,
            lambda size, length: jnp.full((1, size), START),
            TOKENS,
            START,
            END,
            9,
            beam,
            float(penalty),
        )
        return jax.jit(lambda params, encoded: beam_search(params, encoded, LONGEST))(params, encoded())

    tokens, nats = search(81)
    for row in range(2):
        hypothesis = tuple(token for token in np.asarray(tokens[row]).tolist() if token != 9)
        assert hypothesis == best
        assert float(nats[row]) == pytest.approx(scores[best], rel=1e-4)
    # A beam of 1 is greedy decoding, which is not better.
    assert float(search(1)[1][0]) <= max(scores.values()) + 1e-5
    with pytest.raises(ValueError, match=r"sample.beam: must be at least 1"):
        search(0)
