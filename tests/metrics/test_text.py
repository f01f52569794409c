"""Measures of text samples on known examples."""

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from diffusion.metrics.text import (
    diversity,
    ended,
    generative_perplexity,
    in_batches,
    last_features,
    measure,
    repetition,
    retokenize,
    sample_entropy,
    scored_targets,
    self_bleu,
)
from tests.checks import refused

EOS = 9


def uniform_judge(tokens):
    return np.full(tokens.shape, -np.log(50.0))


def test_mask_drops_all_but_the_first_eos():
    tokens = np.array([[1, EOS, 2, EOS, 3], [EOS, 1, 2, EOS, 3], [1, 2, 3, 4, 5], [1, EOS, EOS, EOS, EOS]])
    scored = [[1, 1, 0, 1], [1, 1, 0, 1], [1, 1, 1, 1], [1, 0, 0, 0]]
    np.testing.assert_array_equal(scored_targets(tokens, EOS), np.array(scored, bool))
    np.testing.assert_array_equal(scored_targets(tokens, None), np.ones((4, 4), bool))
    np.testing.assert_array_equal(scored_targets(tokens, None, np.array([5, 3, 1, 2])).sum(axis=1), [4, 2, 0, 1])


def test_perplexity_is_pooled_over_tokens_and_drops_no_sample():
    log_p = {1: -1.0, 2: -3.0, EOS: -7.0}

    def judge(tokens):
        assert tokens.shape == (2, 3)
        return np.vectorize(log_p.get)(tokens)

    tokens = np.array([[1, 1, 1], [1, 2, EOS], [EOS, EOS, 2]])
    value, _ = generative_perplexity(judge, tokens, eos=EOS, batch_size=2)
    assert value == pytest.approx(np.exp((1 + 1 + 3 + 7 + 3) / 5))
    value, error = generative_perplexity(uniform_judge, tokens, eos=EOS, batch_size=2)
    assert value == pytest.approx(50) and error == pytest.approx(0, abs=1e-6), "the size of its vocabulary"
    with refused("no token to score"):
        generative_perplexity(judge, tokens[:, :1], eos=EOS, batch_size=2)


def test_perplexity_error_matches_repeated_sampling():
    nats, tokens = np.random.default_rng(0).gamma(2.0, size=(300, 64, 9)), np.ones((64, 9), int)
    pairs = [generative_perplexity(lambda _, one=one: -one, tokens, eos=None, batch_size=64) for one in nats]
    values, errors = zip(*pairs, strict=True)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


def test_self_bleu_is_that_of_sacrebleu():
    """Each text against all others, with 0.1 of a match where an order has none."""
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(list("abcde"), random.integers(5, 12))) for _ in range(12)]
    bleu = BLEU(smooth_method="floor", smooth_value=0.1, tokenize="none", force=True)
    others = [texts[:index] + texts[index + 1 :] for index in range(len(texts))]
    scores = [bleu.corpus_score([each], [[one] for one in rest]) for each, rest in zip(texts, others, strict=True)]
    expected = np.mean([each.score for each in scores])
    assert self_bleu(texts) == pytest.approx(expected / 100, rel=1e-6)
    assert self_bleu(["a b c d e"] * 3) == pytest.approx(1)
    with refused("self_bleu: needs two texts"):
        self_bleu(["a b"])


def test_retokenized_texts_are_as_wide_as_the_longest_of_their_batch():
    tokens, widths = retokenize(
        [["ab"], ["abcd"], ["abcdefgh"], ["a"], []],
        lambda text: [ord(c) - 97 for c in text],
        length=6,
        eos=EOS,
        batch_size=2,
    )
    np.testing.assert_array_equal(widths, [4, 4, 6, 6, 0])
    np.testing.assert_array_equal(tokens[:2], [[0, 1, EOS, EOS, EOS, EOS], [0, 1, 2, 3, EOS, EOS]])
    scored = scored_targets(tokens, EOS, widths)
    # The first padding of a text shorter than its batch is scored as its first EOS; the longest text has none.
    np.testing.assert_array_equal(scored.sum(axis=1), [2, 3, 5, 1, 0])


def test_ends_of_documents_are_the_end_token_of_the_judge():
    """Joined by a newline, [1, 2, 7, 3], documents would read as one text."""
    samples = [[None, "bc", None, "d", None], ["b", None, None, "c"]]
    tokens, widths = retokenize(samples, lambda text: [ord(c) - 97 for c in text], length=5, eos=EOS, batch_size=2)
    np.testing.assert_array_equal(tokens, [[EOS, 1, 2, EOS, 3], [1, EOS, EOS, 2, EOS]])
    np.testing.assert_array_equal(widths, [5, 5])


def test_what_stands_behind_the_end_of_a_document_is_padding():
    tokens = np.array([[EOS, 1, EOS, 2, EOS], [1, 2, EOS, 3, 3], [EOS, EOS, 1, 2, 3], [1, 2, 3, 4, 5]])
    expected = [[EOS, 1, EOS, -1, -1], [1, 2, EOS, -1, -1], [EOS, EOS, -1, -1, -1], [1, 2, 3, 4, 5]]
    np.testing.assert_array_equal(ended(tokens, EOS, -1), expected)
    np.testing.assert_allclose(sample_entropy(ended(tokens, EOS, -1), -1)[2], 0, atol=1e-12)


def test_entropy_of_a_sample():
    tokens = np.stack([np.array([5, 5, 7, 9]).repeat(256), np.arange(1024), np.full(1024, 3)])
    np.testing.assert_allclose(sample_entropy(tokens), [1.039721, 6.931472, 0], atol=1e-6)


def test_diversity_of_a_set_and_repetition_within_texts():
    assert diversity(["a b c d e", "a b c x y"]) == pytest.approx(0.625)
    assert diversity(["a b a b a b"]) == pytest.approx(0.4 * 0.5 * 2 / 3)
    assert diversity([[1, 2, 3, 4, 5], [1, 2, 3, 8, 9]]) == pytest.approx(0.625)
    assert diversity(["a", ""]) == 0
    assert repetition(["a b a b a b", "a b c d e f"]) == pytest.approx(1 / 6)
    assert repetition(["a b c d", "a b c d", "a"]) == 0


def test_measures_come_with_their_settings():
    tokens = np.array([[1, 2, 3, 4], [1, 1, 1, 1], [4, 3, 2, 1]])
    rows, settings = tokens.tolist(), dict(evaluator="uniform", steps=4, evaluations=5.0, precision="exact")
    scores = measure(tokens, tokens, rows, uniform_judge, eos=None, batch_size=2, **settings)
    expected = settings | dict(generative_perplexity=50, generative_perplexity_sem=0, entropy=2 / 3 * np.log(4))
    expected |= dict(diversity=diversity(rows), repetition=0, samples=3, length=4)
    assert scores == {key: value if isinstance(value, str) else pytest.approx(value) for key, value in expected.items()}
    with refused("must be equal"):
        measure(tokens, tokens, rows[:2], uniform_judge, eos=None, batch_size=2, **settings)
    with refused("generative_perplexity: is nan"):
        measure(tokens, tokens, rows, lambda rows: np.full(rows.shape, np.nan), eos=None, batch_size=2, **settings)


def test_features_are_those_of_the_last_token():
    tokens = np.arange(15).reshape(5, 3)
    features = last_features(lambda rows: np.stack([rows, -rows], axis=-1), tokens, np.array([3, 1, 2, 0, 3]), 2)
    np.testing.assert_array_equal(features[:, 0], [2, 3, 7, 9, 14])
    np.testing.assert_array_equal(in_batches(lambda rows: rows * 2, tokens, 4), tokens * 2)
