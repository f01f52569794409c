"""Measures of text samples on known examples."""

import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

from diffusion.metrics.mauve import curve_area, mauve
from diffusion.metrics.python_code import inner_blocks, inner_lines, parse_rate, parses
from diffusion.metrics.text import (
    Generation,
    columns,
    diversity,
    generative_perplexity,
    in_batches,
    last_features,
    measure,
    repetition,
    retokenize,
    sample_entropy,
    scored_targets,
)

EOS = 9
RECORD = Generation(
    generative_perplexity=10.0,
    generative_perplexity_sem=0.1,
    entropy=5.0,
    diversity=0.5,
    repetition=0.1,
    samples=4,
    length=8,
    steps=16,
    evaluations=17.0,
    precision="exact",
    evaluator="gpt2-large",
)


def uniform_judge(tokens):
    return np.full(tokens.shape, -np.log(50.0))


def test_mask_drops_all_but_the_first_eos():
    tokens = np.array([[1, EOS, 2, EOS, 3], [EOS, 1, 2, EOS, 3], [1, 2, 3, 4, 5], [1, EOS, EOS, EOS, EOS]])
    scored = [[1, 1, 0, 1], [1, 1, 0, 1], [1, 1, 1, 1], [1, 0, 0, 0]]
    np.testing.assert_array_equal(scored_targets(tokens, EOS), np.array(scored, bool))
    np.testing.assert_array_equal(scored_targets(tokens, None), np.ones((4, 4), bool))
    np.testing.assert_array_equal(scored_targets(tokens, None, np.array([5, 3, 1, 2])).sum(axis=1), [4, 2, 0, 1])


def test_uniform_judge_has_the_perplexity_of_its_vocabulary():
    tokens = np.array([[1, EOS, 2, EOS, 3], [1, 2, 3, 4, 5], [1, EOS, 2, 1, 3]])
    value, error = generative_perplexity(uniform_judge, tokens, eos=EOS, batch_size=2)
    assert value == pytest.approx(50) and error == pytest.approx(0, abs=1e-6)


def test_perplexity_is_pooled_over_tokens_and_drops_no_sample():
    log_p = {1: -1.0, 2: -3.0, EOS: -7.0}

    def judge(tokens):
        assert tokens.shape == (2, 3)
        return np.vectorize(log_p.get)(tokens)

    tokens = np.array([[1, 1, 1], [1, 2, EOS], [EOS, EOS, 2]])
    value, _ = generative_perplexity(judge, tokens, eos=EOS, batch_size=2)
    assert value == pytest.approx(np.exp((1 + 1 + 3 + 7 + 3) / 5))
    with pytest.raises(ValueError, match="no token to score"):
        generative_perplexity(judge, tokens[:, :1], eos=EOS, batch_size=2)


def test_perplexity_error_matches_repeated_sampling():
    random = np.random.default_rng(0)
    tables = random.gamma(2.0, size=(300, 64, 9))
    values, errors = zip(
        *(
            generative_perplexity(lambda _, table=table: -table, np.ones((64, 9), int), eos=None, batch_size=64)
            for table in tables
        ),
        strict=True,
    )
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


def test_retokenized_texts_are_as_wide_as_the_longest_of_their_batch():
    tokens, widths = retokenize(
        ["ab", "abcd", "abcdefgh", "a", ""], lambda text: [ord(c) - 97 for c in text], length=6, eos=EOS, batch_size=2
    )
    np.testing.assert_array_equal(widths, [4, 4, 6, 6, 0])
    np.testing.assert_array_equal(tokens[:2], [[0, 1, EOS, EOS, EOS, EOS], [0, 1, 2, 3, EOS, EOS]])
    scored = scored_targets(tokens, EOS, widths)
    # The first padding of a text shorter than its batch is scored as its first EOS; the longest text has none.
    np.testing.assert_array_equal(scored.sum(axis=1), [2, 3, 5, 1, 0])


def test_entropy_of_a_sample():
    tokens = np.stack([np.array([5, 5, 7, 9]).repeat(256), np.arange(1024), np.full(1024, 3)])
    np.testing.assert_allclose(sample_entropy(tokens), [1.039721, 6.931472, 0], atol=1e-6)


def test_diversity_of_a_set():
    assert diversity(["a b c d e", "a b c x y"]) == pytest.approx(0.625)
    assert diversity(["a b a b a b"]) == pytest.approx(0.4 * 0.5 * 2 / 3)
    assert diversity([[1, 2, 3, 4, 5], [1, 2, 3, 8, 9]]) == pytest.approx(0.625)
    assert diversity(["a", ""]) == 0


def test_repetition_within_texts():
    assert repetition(["a b a b a b", "a b c d e f"]) == pytest.approx(1 / 6)
    assert repetition(["a b c d", "a b c d", "a"]) == 0


def test_record_needs_all_its_parts():
    for field, value in {"entropy": np.nan, "samples": 0, "steps": -1, "precision": "", "evaluator": ""}.items():
        with pytest.raises(ValueError, match=field):
            replace(RECORD, **{field: value})
    assert replace(RECORD, steps=0, evaluations=0).steps == 0  # held-out text, the reference
    assert columns(RECORD)["mauve"] is None and columns(RECORD)["steps"] == 16


def test_measure_fills_the_record():
    tokens = np.array([[1, 2, 3, 4], [1, 1, 1, 1], [4, 3, 2, 1]])
    rows = tokens.tolist()
    settings = dict(evaluator="uniform", steps=4, evaluations=5, precision="exact", eos=None, batch_size=2)
    record = measure(tokens, tokens, rows, uniform_judge, **settings)
    assert record.generative_perplexity == pytest.approx(50)
    assert record.entropy == pytest.approx(2 / 3 * np.log(4))
    assert record.diversity == pytest.approx(diversity(rows)) and record.samples == 3 and record.length == 4
    with pytest.raises(ValueError, match="must be equal"):
        measure(tokens, tokens, rows[:2], uniform_judge, **settings)


def test_features_are_those_of_the_last_token():
    tokens = np.arange(15).reshape(5, 3)
    features = last_features(lambda rows: np.stack([rows, -rows], axis=-1), tokens, np.array([3, 1, 2, 0, 3]), 2)
    np.testing.assert_array_equal(features[:, 0], [2, 3, 7, 9, 14])
    np.testing.assert_array_equal(in_batches(lambda rows: rows * 2, tokens, 4), tokens * 2)


def features(count: int, shift: float, seed: int) -> np.ndarray:
    centers = np.random.default_rng(0).normal(size=(4, 8))
    random = np.random.default_rng(seed)
    return centers[random.integers(4, size=count)] + 0.3 * random.normal(size=(count, 8)) + shift


def test_mauve_orders_sets_by_distance():
    reference = features(200, 0.0, 1)
    scores = [mauve(reference, reference).score] + [mauve(reference, features(200, s, 2)).score for s in (0, 0.5, 3)]
    assert scores[0] == pytest.approx(1, abs=1e-6)
    assert scores[0] > scores[1] > scores[2] > scores[3]
    assert scores[1] > 0.8 and scores[3] < 0.1
    result = mauve(reference, features(100, 0.5, 2))
    assert result == mauve(reference, features(100, 0.5, 2))
    assert (result.references, result.samples, result.clusters) == (200, 100, 10)


def test_mauve_of_disjoint_histograms_is_known():
    """KL(q | r) = -log(1 - w), so the curve is x = (1 - w)^5, y = w^5, whose area is 5 B(6, 5)."""
    p, q = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert curve_area(p, q, points=2000) == pytest.approx(5 / 1260, rel=1e-3)
    assert curve_area(p, p) == pytest.approx(1)


def test_mauve_agrees_with_the_public_package():
    pytest.importorskip("faiss")
    public = pytest.importorskip("mauve")
    reference, samples = features(400, 0.0, 1), features(400, 0.25, 2)
    theirs = public.compute_mauve(p_features=reference, q_features=samples, num_buckets=8, verbose=False)
    assert curve_area(theirs.p_hist, theirs.q_hist) == pytest.approx(theirs.mauve, abs=1e-9)
    assert mauve(reference, samples, clusters=8).score == pytest.approx(theirs.mauve, abs=0.05)


def test_mauve_refuses_bad_features():
    good = np.ones((4, 2))
    for bad, said in ((np.ones((4, 3)), "two sets"), (np.ones((1, 2)), "two sets"), (good * np.nan, "finite")):
        with pytest.raises(ValueError, match=said):
            mauve(good, bad)
    assert mauve(good, good).score == pytest.approx(1)


def test_parse_rate_counts_programs():
    whole = "import os\n\ndef f(x):\n    return x\n\nprint(f(1))\n"
    window = (
        "n x + 1\n\ndef f(x):\n    if x:\n        return 1\n    else:\n        return x\n\ny = f(2)\nclass A:\n    de"
    )
    assert parses(whole) and not parses(window)
    assert inner_blocks(window) == "def f(x):\n    if x:\n        return 1\n    else:\n        return x\n\ny = f(2)"
    assert inner_lines("self.a(\n    x = 1\n    y = 2\n  )") == "x = 1\ny = 2"
    rates = parse_rate([whole, window, "", "# nothing\n"])
    assert rates == (0.25, 0.25, 0.5, 4)
    assert rates.whole == 0.25 and rates.blocks == 0.5
    with pytest.raises(ValueError, match="no text"):
        parse_rate([])


def test_blocks_keep_clauses_with_their_statement():
    text = "cut\ntry:\n    a()\nexcept ValueError:\n    b()\nelse:\n    c()\nx = (\n    1\n)\nlast("
    assert parses(inner_blocks(text)) and inner_blocks(text).endswith(")")


def test_parser_is_guarded():
    hostile = ["x = 1\0", "(" * 5000, "-" * 200000 + "1", "x = " + "[" * 400 + "]" * 400, "'\ud800'", "1" * 9000, "def"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [parses(text) for text in hostile[:1]] == [False]
        assert parses("x = '\\d' is 3")
    # In a separate process, since a parser that overflows the stack ends it.
    program = f"from diffusion.metrics.python_code import parses; print([parses(t) for t in {hostile!r}])"
    result = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == str([False] * len(hostile)), result.stderr
