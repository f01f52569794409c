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


def drawn(count: int, probabilities, seed: int, length: int = 120) -> list[str]:
    """Sequences of independent letters with these probabilities of A, C, G, T."""
    random = np.random.default_rng(seed)
    return ["".join(random.choice(list("ACGT"), size=length, p=probabilities)) for _ in range(count)]


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
    sequences = drawn(20, [0.4, 0.3, 0.2, 0.1], 0, 30)
    whole, each = kmer_counts(sequences, 3), kmer_frequencies(sequences, 2)
    model = species_model({"a": sequences[:9], "b": sequences[9:]}, 2)
    predicted = predict_species(sequences, model)
    for name, limit in (("MAX_LETTERS", 70), ("MAX_SEQUENCES", 3)):
        with monkeypatch.context() as patch:
            patch.setattr(genomes, name, limit)
            assert len(list(genomes.chunks(sequences))) == 7
            np.testing.assert_array_equal(kmer_counts(sequences, 3), whole)
            np.testing.assert_array_equal(kmer_frequencies(sequences, 2), each)
            np.testing.assert_array_equal(predict_species(sequences, model), predicted)


def test_jensen_shannon_is_scipys_distance():
    assert js_distance(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(0.832555, abs=1e-6)
    even, uneven = np.array([0.5, 0.5]), np.array([0.75, 0.25])
    assert js_distance(even, uneven) == pytest.approx(0.183908, abs=1e-6)
    assert js_distance(even, uneven) ** 2 == pytest.approx(0.033822, abs=1e-6)
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
    with pytest.raises(ValueError, match=r"no sequence of \['d'\] to compare with"):
        species_distances({"d": ["A"]}, reference, 1)


def test_the_splice_rule():
    exon = "A" * 50

    def record(length, start="GT", end="AG"):
        return exon + start + "C" * (length - 4) + end + exon

    assert splice_rule(record(40)) and splice_rule(record(150))
    assert not splice_rule(record(39)) and not splice_rule(record(151))
    assert not splice_rule(record(60, start="GC")) and not splice_rule(record(60, end="AC"))
    assert not splice_rule("A" + record(60)) and not splice_rule(record(60) + "A")
    assert not splice_rule("") and not splice_rule(exon + exon)
    # Donor and acceptor are relative to their ends, independently of the length.
    ends = {text: (donor(text), acceptor(text)) for text in (record(60), record(39, end="AC"), "A" + record(60), "")}
    assert list(ends.values()) == [(True, True), (True, False), (False, True), (False, False)]


def test_species_are_predicted_from_their_words():
    rich, poor = [0.1, 0.4, 0.4, 0.1], [0.3, 0.2, 0.2, 0.3]
    model = species_model({"rich": drawn(40, rich, 0), "poor": drawn(40, poor, 1)}, 3)
    np.testing.assert_allclose(np.exp(model).sum(axis=1), 1)
    predicted = predict_species(drawn(50, rich, 2) + drawn(50, poor, 3), model)
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
    positive = np.array([True, True, False, False])
    assert auroc(np.array([3, 2, 1, 0]), positive) == 1
    assert auroc(np.array([0, 0, 0, 0]), positive) == 0.5
    # Four pairs: two won, one equal, one lost.
    assert auroc(np.array([2, 1, 1, 1.5]), positive) == pytest.approx(2.5 / 4)
    random = np.random.default_rng(0)
    scores, sides = random.integers(9, size=60), random.random(60) < 0.4
    expected = mannwhitneyu(scores[sides], scores[~sides]).statistic / (sides.sum() * (~sides).sum())
    assert auroc(scores, sides) == pytest.approx(expected)
    with pytest.raises(ValueError, match="4 positives and 0 negatives"):
        auroc(np.zeros(4), np.ones(4, bool))


def test_discriminator_detects_differences_and_no_others():
    rich, poor = [0.15, 0.35, 0.35, 0.15], [0.25] * 4
    reference = drawn(400, rich, 0)
    # The standard error of an AUROC of 1/2 is 0.029 for 200 and 200 sequences, and less over both halves.
    assert kmer_auroc(reference[:200], reference[200:], 3) == pytest.approx(0.5, abs=0.07)
    assert kmer_auroc(reference[:200], drawn(200, poor, 1), 3) > 0.97
    assert kmer_auroc(reference[:200], drawn(200, poor, 1), 3) == kmer_auroc(reference[:200], drawn(200, poor, 1), 3)
    # The same letters in another order differ in words of two letters, not of one.
    shuffled = ["".join(sorted(text)) for text in reference[:200]]
    assert kmer_auroc(reference[:200], shuffled, 3) > 0.97
    assert kmer_auroc(reference[200:], shuffled, 1) == pytest.approx(0.5, abs=0.07)
    with pytest.raises(ValueError, match="at least 4 sequences per set, not 2"):
        kmer_auroc(reference, reference[:3])


def test_distance_decreases_with_the_number_of_samples():
    """Two finite sets of one distribution have a positive distance, as held-out sequences show."""
    one, other = drawn(400, [0.25] * 4, 0), drawn(400, [0.25] * 4, 1)
    few, many = kmer_distance(one[:20], other, 3), kmer_distance(one, other, 3)
    assert 0 < many < few < 0.1
