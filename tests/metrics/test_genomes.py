"""k-mer spectra, species, the splice rule and the discriminator, on known sequences and Markov chains."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import mannwhitneyu

from diffusion.metrics import genomes
from diffusion.metrics.genomes import (
    acceptor,
    auroc,
    donor,
    js_distance,
    kmer_auroc,
    kmer_counts,
    kmer_distance,
    kmer_frequencies,
    kmer_spectrum,
    macro_f1,
    predict_species,
    species_distances,
    species_model,
    splice_rule,
)
from tests.checks import refused

RICH, POOR, EVEN = [0.1, 0.4, 0.4, 0.1], [0.3, 0.2, 0.2, 0.3], [0.25] * 4


def drawn(count: int, probabilities, seed: int, length: int = 120) -> list[str]:
    """Sequences of independent letters with these probabilities of A, C, G, T."""
    random = np.random.default_rng(seed)
    return ["".join(row) for row in random.choice(list("ACGT"), size=(count, length), p=probabilities)]


def test_spectra_of_the_published_example():
    np.testing.assert_allclose(kmer_spectrum(["AGCT", "AAAA"], 1), [0.625, 0.125, 0.125, 0.125])
    pairs = kmer_counts(["AGCT", "AAAA"], 2)
    # AG GC CT and three times AA; no window spans two sequences (TA).
    assert pairs[0b0000] == 3 and pairs[0b0010] == pairs[0b1001] == pairs[0b0111] == 1 and pairs.sum() == 6


def test_only_whole_windows_of_the_four_letters_count():
    np.testing.assert_array_equal(kmer_counts(["ACNGTa▢cgt", "", "C"], 2), kmer_counts(["AC", "GTA", "CGT"], 2))
    assert not kmer_spectrum(["A", "CN", ""], 2).any() and not kmer_spectrum([], 3).any()
    np.testing.assert_allclose(kmer_frequencies(["AACA", "N", "C"], 1), [[0.75, 0.25, 0, 0], [0] * 4, [0, 1, 0, 0]])


def test_chunks_do_not_change_results(monkeypatch):
    sequences = drawn(20, RICH, 0, 30)

    def results():
        model = species_model({"a": sequences[:9], "b": sequences[9:]}, 2)
        return kmer_counts(sequences, 3), kmer_frequencies(sequences, 2), predict_species(sequences, model)

    whole = results()
    for name, limit in (("MAX_LETTERS", 70), ("MAX_SEQUENCES", 3)):
        with monkeypatch.context() as patch:
            patch.setattr(genomes, name, limit)
            assert len(list(genomes.chunks(sequences))) == 7
            for part, expected in zip(results(), whole, strict=True):
                np.testing.assert_array_equal(part, expected)


def test_jensen_shannon_is_scipys_distance():
    assert js_distance(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(0.832555, abs=1e-6)
    assert js_distance(np.array([0.5, 0.5]), np.array([0.75, 0.25])) == pytest.approx(0.183908, abs=1e-6)
    p, q = np.random.default_rng(0).dirichlet(np.ones(64), 2)
    p[:5] = 0
    assert js_distance(7 * p, q) == pytest.approx(jensenshannon(7 * p, q)) and js_distance(p, p) == 0
    # Without windows, as for sequences that are too short, the distance is maximal.
    assert js_distance(np.zeros(4), np.ones(4)) == pytest.approx(np.sqrt(np.log(2)))


def test_species_are_weighted_as_in_the_reference():
    reference = {"a": ["AAAA"] * 3, "b": ["CCCC"], "c": ["GG"] * 9}
    mean, each = species_distances({"a": ["AAAA"], "b": ["TTTT"]}, reference, 1)
    assert each == {"a": 0, "b": pytest.approx(0.832555, abs=1e-6)}
    assert mean == pytest.approx(0.832555 / 4, abs=1e-6)
    with refused(r"no sequence of \['d'\] to compare with"):
        species_distances({"d": ["A"]}, reference, 1)


def test_the_splice_rule():
    exon = "A" * 50

    def record(length, start="GT", end="AG"):
        return exon + start + "C" * (length - 4) + end + exon

    kept, broken = [record(40), record(150)], [record(39), record(151), record(60, start="GC"), record(60, end="AC")]
    broken += ["A" + record(60), record(60) + "A", "", exon + exon]
    assert all(map(splice_rule, kept)) and not any(map(splice_rule, broken))
    # Donor and acceptor are relative to their ends, independently of the length.
    ends = [(donor(text), acceptor(text)) for text in (record(60), record(39, end="AC"), "A" + record(60), "")]
    assert ends == [(True, True), (True, False), (False, True), (False, False)]


def test_species_are_predicted_from_their_words():
    model = species_model({"rich": drawn(40, RICH, 0), "poor": drawn(40, POOR, 1)}, 3)
    predicted = predict_species(drawn(50, RICH, 2) + drawn(50, POOR, 3), model)
    assert (predicted == np.repeat([0, 1], 50)).mean() > 0.95
    # Add-one smoothing: A 3 of 6, and the other letters 1 of 6; C is likelier in the second.
    tiny = species_model({"a": ["AA"], "c": ["CC"]}, 1)
    np.testing.assert_allclose(np.exp(tiny[0]), [3 / 6, 1 / 6, 1 / 6, 1 / 6])
    np.testing.assert_array_equal(predict_species(["AAC", "CCA", "GG"], tiny), [0, 1, 0])


def test_f1_is_the_mean_over_classes():
    labels, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    assert macro_f1(labels, predicted) == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert macro_f1(labels, labels) == 1 and macro_f1(labels, 1 - labels) == 0


def test_auroc_by_ranks():
    # Four pairs: two won, one equal, one lost.
    assert auroc(np.array([2, 1, 1, 1.5]), np.array([True, True, False, False])) == pytest.approx(2.5 / 4)
    random = np.random.default_rng(0)
    scores, sides = random.integers(9, size=60), random.random(60) < 0.4
    expected = mannwhitneyu(scores[sides], scores[~sides]).statistic / (sides.sum() * (~sides).sum())
    assert auroc(scores, sides) == pytest.approx(expected)
    with refused("4 positives and 0 negatives"):
        auroc(np.zeros(4), np.ones(4, bool))


def test_discriminator_detects_differences_and_no_others():
    reference, other = drawn(400, RICH, 0), drawn(200, EVEN, 1)
    first, second = reference[:200], reference[200:]
    # The standard error of an AUROC of 1/2 is 0.029 for 200 and 200 sequences, and less over both halves.
    assert kmer_auroc(first, second, 3) == pytest.approx(0.5, abs=0.07)
    assert kmer_auroc(first, other, 3) > 0.97 and kmer_auroc(first, other, 3) == kmer_auroc(first, other, 3)
    # The same letters in another order differ in words of three letters, not of one.
    shuffled = ["".join(sorted(text)) for text in first]
    assert kmer_auroc(first, shuffled, 3) > 0.97
    assert kmer_auroc(second, shuffled, 1) == pytest.approx(0.5, abs=0.07)
    with refused("at least 4 sequences per set, not 2"):
        kmer_auroc(reference, reference[:3])


def test_distance_decreases_with_the_number_of_samples():
    """Two finite sets of one distribution have a positive distance, as held-out sequences show."""
    one, other = drawn(400, EVEN, 0), drawn(400, EVEN, 1)
    assert 0 < kmer_distance(one, other, 3) < kmer_distance(one[:20], other, 3) < 0.1
