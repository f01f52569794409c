"""Measures of text samples: generative perplexity, entropy, diversity and repetition.

Generative perplexity alone rewards repetition and low temperature, so that `measure` gives the others beside it.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from math import isfinite, log

import numpy as np
from etils import epy
from jaxtyping import Array, Bool, Float, Int, Integer

from diffusion.metrics.statistics import ratio
from diffusion.types import Ids

with epy.lazy_imports():
    from scipy import special

# log p of each token given those before it, [B, L] in nats; entry 0 is not read.
Judge = Callable[[Integer[np.ndarray, "B L"]], Float[Array | np.ndarray, "B L"]]
Features = Callable[[Integer[np.ndarray, "B L"]], Float[Array | np.ndarray, "B L D"]]
Text = str | Sequence[Hashable]


def measure(
    tokens: Integer[np.ndarray, "N L"],
    judge_tokens: Integer[np.ndarray, "M K"],
    texts: Sequence[Text],
    judge: Judge,
    *,
    evaluator: str,
    steps: int,
    evaluations: float,
    precision: str,
    eos: int | None,
    batch_size: int,
    widths: Int[np.ndarray, " N"] | None = None,
    mauve: float | None = None,
    pad: int | None = None,
) -> dict[str, float | int | str]:
    """Scores samples: entropy of their tokens, diversity and repetition of their texts, perplexity by the judge.

    `judge_tokens` are the samples in the judge's tokenizer (equal to `tokens` if both share one; else see
    `retokenize`); `eos` is the judge's end of text, None when it has none. The measures come with the settings they
    must be reported with: the time grid's `steps` and the denoiser's `evaluations` per sample, both 0 for held-out
    text, the `precision` of the token draws, and the `evaluator`, which is the judge.

    Raises:
      ValueError: when tokens, judge tokens and texts differ in number, or the perplexity is not finite.
    """
    if not len(tokens) == len(judge_tokens) == len(texts):
        raise ValueError(
            f"samples: {len(tokens)} token rows, {len(judge_tokens)} judge rows and {len(texts)} texts must be equal"
        )
    perplexity, error = generative_perplexity(judge, judge_tokens, eos=eos, batch_size=batch_size, widths=widths)
    if not isfinite(perplexity):
        raise ValueError(f"generative_perplexity: is {perplexity}; check the judge's precision")
    return {
        "generative_perplexity": perplexity,
        "generative_perplexity_sem": error,
        "entropy": float(sample_entropy(tokens, pad).mean()),  # nats, mean over samples
        "diversity": diversity(texts),
        "repetition": repetition(texts),
        "samples": len(tokens),
        "length": tokens.shape[1],  # tokens per sample
        "steps": steps,
        "evaluations": float(evaluations),
        "precision": precision,
        "evaluator": evaluator,
    } | ({} if mauve is None else {"mauve": mauve})


def scored_targets(
    tokens: Integer[np.ndarray, "N L"], eos: int | None, widths: Int[np.ndarray, " N"] | None = None
) -> Bool[np.ndarray, "N L-1"]:
    """Whether each of the targets 2..L counts, by the rule of the public MDLM code (arXiv 2406.07524).

    Target j counts iff it is not EOS, or the number of EOS symbols up to and including j is 1: every EOS but the first
    is excluded (also the last one of a sequence that starts with EOS), and text after it is included. Targets at
    `widths` and beyond never count.
    """
    tokens = np.asarray(tokens)
    scored = np.ones(tokens.shape, bool)
    if eos is not None:
        is_eos = tokens == eos
        scored = ~is_eos | (np.cumsum(is_eos, axis=1) == 1)
    if widths is not None:
        scored &= np.arange(tokens.shape[1]) < np.asarray(widths)[:, None]
    return scored[:, 1:]


def generative_perplexity(
    judge: Judge,
    tokens: Integer[np.ndarray, "N L"],
    *,
    eos: int | None,
    batch_size: int,
    widths: Int[np.ndarray, " N"] | None = None,
) -> tuple[float, float]:
    """exp(total NLL of the scored targets / their number), pooled over samples, and its standard error over samples.

    All samples count: the last batch is filled and the fill ignored, where the public code drops the remainder.

    Raises:
      ValueError: when no target is scored.
    """
    scored = scored_targets(tokens, eos, widths)
    if not scored.any():
        raise ValueError("samples: no token to score; they are shorter than 2 tokens or hold nothing but EOS")
    nats = -in_batches(judge, np.asarray(tokens), batch_size)[:, 1:]
    mean, error = ratio(np.where(scored, nats, 0).sum(axis=1), scored.sum(axis=1).astype(np.float64))
    return float(np.exp(mean)), float(np.exp(mean) * error)


def retokenize(
    samples: Sequence[Sequence[str | None]], encode: Callable[[str], Ids], *, length: int, eos: int, batch_size: int
) -> tuple[Int[np.ndarray, "N L"], Int[np.ndarray, " N"]]:
    """Tokens of samples for the judge: cut to `length`, padded on the right with EOS, without start symbol.

    A sample is its texts in order, with None where a document begins or ends, which becomes the judge's EOS: the public
    MDLM code tokenizes "<|endoftext|>" as this one token, by which the judge knows documents apart.

    Also returns the width of each row in the public MDLM code, which is that of the longest text of its batch: the
    first padding of a shorter text without EOS is scored there as its first EOS. Columns beyond the width are padding
    to a fixed shape.
    """
    rows = [[token for piece in each for token in ([eos] if piece is None else encode(piece))] for each in samples]
    rows = [row[:length] for row in rows]
    tokens = np.full((len(rows), length), eos, np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    starts = range(0, len(rows), batch_size)
    widths = [max(map(len, rows[start : start + batch_size])) for start in starts]
    return tokens, np.repeat(widths, batch_size)[: len(rows)]


def last_features(
    hidden: Features, tokens: Integer[np.ndarray, "N L"], lengths: Int[np.ndarray, " N"], batch_size: int
) -> Float[np.ndarray, "N D"]:
    """Hidden state of the judge at the last token of each sequence, the features of MAUVE."""
    tokens, last, parts = np.asarray(tokens), np.maximum(np.asarray(lengths), 1) - 1, []
    for start in range(0, len(tokens), batch_size):
        states = in_batches(hidden, tokens[start : start + batch_size], batch_size)
        parts.append(states[np.arange(len(states)), last[start : start + batch_size]])
    return np.concatenate(parts)


def in_batches(
    function: Callable[[np.ndarray], Array | np.ndarray], array: np.ndarray, batch_size: int
) -> Float[np.ndarray, "..."]:
    """Applies a function to batches of a fixed shape, the last one filled with copies of its first row, in float64."""
    parts = []
    for start in range(0, len(array), batch_size):
        batch = array[start : start + batch_size]
        fill = np.repeat(batch[:1], batch_size - len(batch), axis=0)
        parts.append(np.asarray(function(np.concatenate([batch, fill])), np.float64)[: len(batch)])
    return np.concatenate(parts)


def ended(tokens: Int[np.ndarray, "N L"], end: int, pad: int) -> Int[np.ndarray, "N L"]:
    """Samples of one document each, with padding behind their end: the first `end` but the one that may begin them."""
    tokens = np.array(tokens)
    ends = tokens[:, 1:] == end
    behind = np.cumsum(ends, axis=1) - ends > 0
    tokens[:, 1:][behind] = pad
    return tokens


def sample_entropy(tokens: Integer[np.ndarray, "N L"], pad: int | None = None) -> Float[np.ndarray, " N"]:
    """Entropy -sum_v f_v ln f_v of the token frequencies of each sample, in nats (ReMDM, arXiv 2503.00307).

    The symbol `pad` is no token.
    """
    counts = [np.unique(row[row != pad], return_counts=True)[1] for row in np.asarray(tokens)]
    return np.array([special.entr(count / count.sum()).sum() for count in counts])


def ngrams(text: Text, order: int) -> list[tuple]:
    """All n-grams of the whitespace-separated words of a text, or of the items of any other sequence."""
    words = text.split() if isinstance(text, str) else list(text)
    return [tuple(words[start : start + order]) for start in range(len(words) - order + 1)]


def diversity(texts: Iterable[Text], orders: Sequence[int] = (2, 3, 4)) -> float:
    """Product over n of distinct / all n-grams of the whole set (G-Star, arXiv 2510.08369), in [0, 1].

    Decreases with the size of the set: compare at equal count and length. 0 for a set without n-grams.
    """
    texts, product = list(texts), 1.0
    for order in orders:
        grams = [gram for text in texts for gram in ngrams(text, order)]
        product *= len(set(grams)) / max(len(grams), 1)
    return product


def self_bleu(texts: Sequence[Text], order: int = 4) -> float:
    """Mean over texts of BLEU with all other texts as references (Texygen, arXiv 1802.01886), in [0, 1].

    BLEU of text i is min(1, exp(1 - r / c)) (prod_n p_n)^(1/4), with its length c, the closest length r of another
    text, and p_n the share of its n-grams that another text has, counted at most as often as the text that has it most
    often. A p_n without matches has 0.1 of a match. Higher is less diverse.

    Raises:
      ValueError: for fewer than two texts.
    """
    if len(texts) < 2:
        raise ValueError(f"self_bleu: needs two texts or more, not {len(texts)}")
    logs = np.zeros(len(texts))
    for size in range(1, order + 1):
        counts = [Counter(ngrams(each, size)) for each in texts]
        first, second = Counter[tuple](), Counter[tuple]()  # the two largest counts of an n-gram over the texts
        for each in counts:
            for gram, number in each.items():
                second[gram] = max(second[gram], min(first[gram], number))
                first[gram] = max(first[gram], number)
        for index, each in enumerate(counts):
            # The largest count elsewhere is the second one where this text has the first.
            limits = (second[gram] if number == first[gram] else first[gram] for gram, number in each.items())
            matches = sum(map(min, each.values(), limits))
            logs[index] += log(max(matches, 0.1) / max(each.total(), 1)) / order
    lengths = np.array([len(ngrams(each, 1)) for each in texts])
    closest = np.array([closest_length(lengths, index) for index in range(len(texts))])
    return float(np.mean(np.exp(np.minimum(0, 1 - closest / np.maximum(lengths, 1)) + logs)))


def closest_length(lengths: Int[np.ndarray, " N"], index: int) -> int:
    """The length of another text that is closest to that of text `index`, the smaller one of two."""
    others = np.delete(lengths, index)
    return int(others[np.lexsort((others, np.abs(others - lengths[index])))[0]])


def repetition(texts: Iterable[Text], order: int = 4) -> float:
    """Mean over texts of 1 - distinct / all n-grams within the text, in [0, 1] (rep-n; arXiv 1908.04319).

    A text shorter than n has rate 0.
    """
    rates = [1 - len(set(grams)) / len(grams) if (grams := ngrams(text, order)) else 0.0 for text in texts]
    return float(np.mean(rates))
