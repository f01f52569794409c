"""Measures of generated nucleotide sequences: k-mer spectra, the splice rule, species, and a discriminator.

A finite set has a positive distance to its own distribution: compare equal counts, beside those of held-out sequences.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Integer
from scipy.special import rel_entr
from scipy.stats import mannwhitneyu

# Lengths in a record of splice sites: exon, intron, exon.
EXON, SHORTEST_INTRON, LONGEST_INTRON = 50, 40, 150
LETTERS = "ACGT"
# Limits of a chunk in which windows are counted.
MAX_LETTERS, MAX_SEQUENCES = 2**22, 2**10
# Sequences of each species by its name.
Groups = Mapping[str, Sequence[str]]


def windows(sequences: Sequence[str], k: int) -> tuple[Int[np.ndarray, " W"], Int[np.ndarray, " W"]]:
    """Index of the sequence and number in base 4 (A 0, C 1, G 2, T or U 3) of each window of k letters."""
    table = np.full(256, -1, np.int8)
    table[np.frombuffer((LETTERS + LETTERS.lower() + "Uu").encode(), np.uint8)] = [0, 1, 2, 3, 0, 1, 2, 3, 3, 3]
    # Line ends separate the windows of different sequences.
    letters = np.frombuffer("\n".join(sequences).encode("ascii", "replace"), np.uint8)
    digits, owners = table[letters], np.cumsum(letters == ord("\n"))
    count = max(len(digits) - k + 1, 0)
    codes, valid = np.zeros(count, np.int64), np.ones(count, bool)
    for offset in range(k):
        digit = digits[offset : offset + count]
        codes = 4 * codes + digit
        valid &= digit >= 0
    return owners[:count][valid], codes[valid]


def chunks(sequences: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """Yields chunks of consecutive sequences, which bound memory, each with the index of its first sequence."""
    start, letters = 0, 0
    for end, sequence in enumerate(sequences, 1):
        letters += len(sequence)
        if letters >= MAX_LETTERS or end - start >= MAX_SEQUENCES or end == len(sequences):
            yield start, sequences[start:end]
            start, letters = end, 0


def kmer_counts(sequences: Sequence[str], k: int) -> Int[np.ndarray, " K"]:
    """Counts of the 4^k words over all sequences, in alphabetical order."""
    counts = np.zeros(4**k, np.int64)
    for _, chunk in chunks(sequences):
        counts += np.bincount(windows(chunk, k)[1], minlength=4**k)
    return counts


def kmer_spectrum(sequences: Sequence[str], k: int) -> Float[np.ndarray, " K"]:
    """Frequencies of the 4^k words over all windows of k letters A, C, G, T of all sequences; zeros without windows."""
    counts = kmer_counts(sequences, k)
    return counts / max(counts.sum(), 1)


def js_distance(first: Float[np.ndarray, " K"], second: Float[np.ndarray, " K"]) -> float:
    """Jensen-Shannon distance sqrt((KL(p | m) + KL(q | m)) / 2) with m = (p + q) / 2, in [0, 0.8326] sqrt(nats).

    p and q are `first` and `second`, normalized; a vector of zeros has the maximal distance to any other.
    """
    if not np.any(first) or not np.any(second):
        return float(np.sqrt(np.log(2)))
    p, q = first / np.sum(first), second / np.sum(second)
    middle = (p + q) / 2
    # SciPy's `jensenshannon` is NaN where rounding makes this sum negative.
    total = rel_entr(p, middle).sum() + rel_entr(q, middle).sum()
    return float(np.sqrt(max(total, 0) / 2))


def kmer_distance(generated: Sequence[str], reference: Sequence[str], k: int) -> float:
    """Jensen-Shannon distance of the k-mer spectra of two sets."""
    return js_distance(kmer_spectrum(generated, k), kmer_spectrum(reference, k))


def species_distances(generated: Groups, reference: Groups, k: int) -> tuple[float, dict[str, float]]:
    """Mean over species of the spectrum distance, weighted by counts in the reference, and the distance of each.

    Raises:
      ValueError: when a generated species has no reference.
    """
    missing = [name for name in generated if not reference.get(name)]
    if missing or not generated:
        raise ValueError(f"judge.reference: no sequence of {missing or 'any species'} to compare with")
    distances = {name: kmer_distance(sequences, reference[name], k) for name, sequences in generated.items()}
    weights = [len(reference[name]) for name in distances]
    return float(np.average(list(distances.values()), weights=weights)), distances


def splice_rule(sequence: str) -> bool:
    """Whether a sequence is exon (50), intron (40 to 150), exon (50), with an intron that starts with GT, ends with AG.

    True for every record of the data, and for one in 256 random sequences of such a length.
    """
    fits = SHORTEST_INTRON <= len(sequence) - 2 * EXON <= LONGEST_INTRON
    return fits and donor(sequence) and acceptor(sequence)


def donor(sequence: str) -> bool:
    """Whether GT follows the 50 letters of the first exon, a position relative to the start."""
    return sequence[EXON:].startswith("GT")


def acceptor(sequence: str) -> bool:
    """Whether AG precedes the 50 letters of the last exon, a position relative to the end."""
    return sequence[:-EXON].endswith("AG")


def species_model(groups: Groups, k: int = 6) -> Float[np.ndarray, "S K"]:
    """log p(word | species) in nats, in the order of the groups, with add-one smoothing."""
    counts = np.stack([kmer_counts(sequences, k) for sequences in groups.values()]) + 1
    return np.log(counts / counts.sum(axis=1, keepdims=True))


def predict_species(sequences: Sequence[str], model: Float[np.ndarray, "S K"]) -> Int[np.ndarray, " N"]:
    """Naive Bayes with a uniform prior: argmax over species of sum log p(word | species) over a sequence's windows."""
    k = round(np.log(model.shape[1]) / np.log(4))
    scores = np.zeros((len(model), len(sequences)))
    for start, chunk in chunks(sequences):
        owners, codes = windows(chunk, k)
        for row, log_prob in zip(scores, model, strict=True):
            row[start : start + len(chunk)] = np.bincount(owners, log_prob[codes], minlength=len(chunk))
    return scores.argmax(axis=0)


def macro_f1(labels: Int[np.ndarray, " N"], predictions: Int[np.ndarray, " N"]) -> float:
    """Mean over the classes of `labels` of F1 = 2 TP / (2 TP + FP + FN)."""
    scores = []
    for label in np.unique(labels):
        hits = np.sum((labels == label) & (predictions == label))
        scores.append(2 * hits / (np.sum(labels == label) + np.sum(predictions == label)))
    return float(np.mean(scores))


def kmer_frequencies(sequences: Sequence[str], k: int) -> Float[np.ndarray, "N K"]:
    """Spectrum of each sequence; zeros for a sequence without windows."""
    counts = np.zeros((len(sequences), 4**k), np.float32)
    for start, chunk in chunks(sequences):
        owners, codes = windows(chunk, k)
        flat = np.bincount(owners * 4**k + codes, minlength=len(chunk) * 4**k)
        counts[start : start + len(chunk)] = flat.reshape(len(chunk), 4**k)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def auroc(scores: Float[np.ndarray, " N"] | Integer[np.ndarray, " N"], positive: Bool[np.ndarray, " N"]) -> float:
    """Area under the ROC curve, P(positive above negative) + P(equal) / 2, from ranks (Mann-Whitney).

    Raises:
      ValueError: without a positive or without a negative.
    """
    positive = np.asarray(positive, bool)
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        raise ValueError(f"sample.count: {count} positives and {others} negatives have no AUROC")
    return float(mannwhitneyu(scores[positive], scores[~positive]).statistic / (count * others))


def kmer_auroc(reference: Sequence[str], generated: Sequence[str], k: int = 6, seed: int = 0) -> float:
    """AUROC of logistic regression between reference and generated sequences by their k-mer frequencies.

    The mean over two halves of both sets, each tested with the other for training: 0.5 for indistinguishable sets. The
    published AUROC has a HyenaDNA network as its discriminator, which also sees the positions of words; a Markov chain
    with the contexts of k - 1 letters of the data is not detected here.

    Raises:
      ValueError: for fewer than 4 sequences per set.
    """
    count = min(len(reference), len(generated)) // 2 * 2
    if count < 4:
        raise ValueError(f"sample.count: a discriminator needs at least 4 sequences per set, not {count}")
    random = np.random.default_rng(seed)
    sets = [[each[int(index)] for index in random.permutation(len(each))[:count]] for each in (reference, generated)]
    features = np.stack([kmer_frequencies(sequences, k) for sequences in sets])
    halves = features.reshape(2, 2, count // 2, -1).swapaxes(0, 1).reshape(2, count, -1)
    labels = np.arange(count) < count // 2
    results = []
    for train, test in (halves, halves[::-1]):
        mean, scale = train.mean(axis=0), train.std(axis=0) + 1e-6
        weights = np.asarray(logistic_regression((train - mean) / scale, labels))
        results.append(auroc(((test - mean) / scale) @ weights, labels))
    return float(np.mean(results))


@jax.jit
def logistic_regression(features: Float[Array, "N K"], positive: Bool[Array, " N"]) -> Float[Array, " K"]:
    """Weights after 200 steps of Adam on the mean log loss + |w|^2 / 20, for centered features."""
    optimizer = optax.adam(0.02)
    signs = jnp.where(positive, 1.0, -1.0)

    def loss(weights):
        return jax.nn.softplus(-signs * (features @ weights)).mean() + 0.05 * jnp.sum(weights**2)

    def step(state: Any, _: None) -> tuple[Any, None]:
        weights, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(weights), moments)
        return (optax.apply_updates(weights, updates), moments), None

    weights = jnp.zeros(features.shape[1])
    (weights, _), _ = jax.lax.scan(step, (weights, optimizer.init(weights)), length=200)
    return weights
