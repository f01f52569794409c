"""Measures of generated nucleotide sequences: k-mer spectra, the splice rule, species, and a discriminator.

Every finite set is some distance from its own source: compare equal counts, beside held-out sequences in their place.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Integer

# A record of splice sites is exon, intron, exon; the introns of the data are of these lengths.
EXON, SHORTEST_INTRON, LONGEST_INTRON = 50, 40, 150
LETTERS = "ACGT"
# Windows are counted at most so many letters, and so many sequences, at a time.
MOST_LETTERS, MOST_SEQUENCES = 2**22, 2**10
# One species' sequences by its name.
Groups = Mapping[str, Sequence[str]]


def windows(sequences: Sequence[str], k: int) -> tuple[Int[np.ndarray, " W"], Int[np.ndarray, " W"]]:
    """Every window of k letters A, C, G, T: the sequence it lies in, and its number in base 4 (A 0, C 1, G 2, T 3)."""
    table = np.full(256, -1, np.int8)
    table[np.frombuffer((LETTERS + LETTERS.lower()).encode(), np.uint8)] = [0, 1, 2, 3, 0, 1, 2, 3]
    # The line ends keep windows inside their sequence.
    letters = np.frombuffer("\n".join(sequences).encode("ascii", "replace"), np.uint8)
    digits, owners = table[letters], np.cumsum(letters == ord("\n"))
    count = max(len(digits) - k + 1, 0)
    codes, whole = np.zeros(count, np.int64), np.ones(count, bool)
    for offset in range(k):
        digit = digits[offset : offset + count]
        codes = 4 * codes + digit
        whole &= digit >= 0
    return owners[:count][whole], codes[whole]


def parts(sequences: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """Runs of consecutive sequences that bound what is held in memory, each with the index of its first."""
    start, letters = 0, 0
    for end, sequence in enumerate(sequences, 1):
        letters += len(sequence)
        if letters >= MOST_LETTERS or end - start >= MOST_SEQUENCES or end == len(sequences):
            yield start, sequences[start:end]
            start, letters = end, 0


def kmer_counts(sequences: Sequence[str], k: int) -> Int[np.ndarray, " K"]:
    """How often each of the 4^k words occurs in all sequences together, in alphabetical order."""
    counts = np.zeros(4**k, np.int64)
    for _, part in parts(sequences):
        counts += np.bincount(windows(part, k)[1], minlength=4**k)
    return counts


def kmer_spectrum(sequences: Sequence[str], k: int) -> Float[np.ndarray, " K"]:
    """Shares of the 4^k words among all windows of k letters of all sequences; zeros when there is no window.

    Windows with another letter than A, C, G, T do not count.
    """
    counts = kmer_counts(sequences, k)
    return counts / max(counts.sum(), 1)


def js_distance(first: Float[np.ndarray, " K"], second: Float[np.ndarray, " K"]) -> float:
    """sqrt((KL(p | m) + KL(q | m)) / 2) with m = (p + q) / 2, in sqrt(nats): SciPy's `jensenshannon`, 0 to 0.8326.

    Both are normalized first; one that is all zeros is as far from anything as can be.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if not first.any() or not second.any():
        return float(np.sqrt(np.log(2)))
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2
    total = sum(float(np.sum(part[part > 0] * np.log(part[part > 0] / middle[part > 0]))) for part in (p, q))
    return float(np.sqrt(max(total, 0) / 2))


def kmer_distance(generated: Sequence[str], reference: Sequence[str], k: int) -> float:
    """Jensen-Shannon distance of two sets' k-mer spectra."""
    return js_distance(kmer_spectrum(generated, k), kmer_spectrum(reference, k))


def species_distances(generated: Groups, reference: Groups, k: int) -> tuple[float, dict[str, float]]:
    """Distance of each generated species' spectrum, and their mean weighted by the species' share of the reference.

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
    """Exon (50), intron (40 to 150), exon (50), where the intron starts with GT and ends with AG.

    It holds for every record of the data and, in random letters of a fitting length, for one in 256.
    """
    fits = SHORTEST_INTRON <= len(sequence) - 2 * EXON <= LONGEST_INTRON
    return fits and donor(sequence) and acceptor(sequence)


def donor(sequence: str) -> bool:
    """Whether GT follows the first exon's 50 letters: a place counted from the start."""
    return sequence[EXON:].startswith("GT")


def acceptor(sequence: str) -> bool:
    """Whether AG precedes the last exon's 50 letters: a place counted from the end."""
    return sequence[:-EXON].endswith("AG")


def species_model(groups: Groups, k: int = 6) -> Float[np.ndarray, "S K"]:
    """log p(word | species), in nats, of the groups in their order, one occurrence added to each word."""
    counts = np.stack([kmer_counts(sequences, k) for sequences in groups.values()]) + 1
    return np.log(counts / counts.sum(axis=1, keepdims=True))


def predict_species(sequences: Sequence[str], model: Float[np.ndarray, "S K"]) -> Int[np.ndarray, " N"]:
    """argmax over species of sum log p(word | species) over a sequence's windows: naive Bayes, all species alike."""
    k = round(np.log(model.shape[1]) / np.log(4))
    scores = np.zeros((len(model), len(sequences)))
    for start, part in parts(sequences):
        owners, codes = windows(part, k)
        for row, log_prob in zip(scores, model, strict=True):
            row[start : start + len(part)] = np.bincount(owners, log_prob[codes], minlength=len(part))
    return scores.argmax(axis=0)


def macro_f1(asked: Int[np.ndarray, " N"], found: Int[np.ndarray, " N"]) -> float:
    """Mean over the asked-for classes of 2 TP / (2 TP + FP + FN)."""
    scores = []
    for label in np.unique(asked):
        hits = np.sum((asked == label) & (found == label))
        scores.append(2 * hits / (np.sum(asked == label) + np.sum(found == label)))
    return float(np.mean(scores))


def kmer_frequencies(sequences: Sequence[str], k: int) -> Float[np.ndarray, "N K"]:
    """Each sequence's own spectrum, zeros for one without a window."""
    counts = np.zeros((len(sequences), 4**k), np.float32)
    for start, part in parts(sequences):
        owners, codes = windows(part, k)
        flat = np.bincount(owners * 4**k + codes, minlength=len(part) * 4**k)
        counts[start : start + len(part)] = flat.reshape(len(part), 4**k)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def auroc(scores: Float[np.ndarray, " N"] | Integer[np.ndarray, " N"], positive: Bool[np.ndarray, " N"]) -> float:
    """P(a positive scores above a negative) + P(equal) / 2, exactly, by ranks (Mann-Whitney).

    Raises:
      ValueError: when one side is empty.
    """
    scores, positive = np.asarray(scores), np.asarray(positive, bool)
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        raise ValueError(f"sample.count: {count} positives and {others} negatives have no AUROC")
    ordered = np.sort(scores)
    ranks = (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right") + 1) / 2
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


def kmer_auroc(real: Sequence[str], generated: Sequence[str], k: int = 6, seed: int = 0) -> float:
    """How well logistic regression on k-mer frequencies tells real from generated: 0.5 not at all, 1 always.

    Trained on half of each set and tested on the other half, then the other way round; the mean of both. It is not
    the published AUROC, whose discriminator is a HyenaDNA network that also sees where a word stands: a Markov chain of
    the data's own (k-1)-letter contexts goes undetected here.

    Raises:
      ValueError: for fewer than 4 sequences a side.
    """
    count = min(len(real), len(generated)) // 2 * 2
    if count < 4:
        raise ValueError(f"sample.count: a discriminator needs at least 4 sequences a side, not {count}")
    random = np.random.default_rng(seed)
    drawn = [[side[int(index)] for index in random.permutation(len(side))[:count]] for side in (real, generated)]
    features = np.stack([kmer_frequencies(side, k) for side in drawn])
    halves = features.reshape(2, 2, count // 2, -1).swapaxes(0, 1).reshape(2, count, -1)
    truth = np.arange(count) < count // 2
    results = []
    for train, test in (halves, halves[::-1]):
        mean, scale = train.mean(axis=0), train.std(axis=0) + 1e-6
        weights = np.asarray(logistic_regression((train - mean) / scale, truth))
        results.append(auroc(((test - mean) / scale) @ weights, truth))
    return float(np.mean(results))


@jax.jit
def logistic_regression(features: Float[Array, "N K"], positive: Bool[Array, " N"]) -> Float[Array, " K"]:
    """Weights that minimize the mean log loss + |w|^2 / 20, by 200 steps of Adam on centered features."""
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
