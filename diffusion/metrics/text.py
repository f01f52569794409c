"""Measures of samples: judge perplexity, entropy, diversity, repetition, and the record that keeps them together.

A generative perplexity alone rewards repetition and low temperature, so `Generation` cannot be built without the rest.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, fields
from math import isfinite

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from diffusion.metrics.statistics import ratio
from diffusion.types import Ids

# log p of every token given those before it, [B, L] nats; entry 0 is not read.
Judge = Callable[[Integer[np.ndarray, "B L"]], Float[Array | np.ndarray, "B L"]]
Features = Callable[[Integer[np.ndarray, "B L"]], Float[Array | np.ndarray, "B L D"]]
Text = str | Sequence[Hashable]


@dataclass(frozen=True)
class Generation:
    """What a set of samples scored, and everything needed to read that number.

    Raises:
      ValueError: for a count that is too small, a missing name, or a measure that is not a finite number.
    """

    generative_perplexity: float
    generative_perplexity_sem: float
    entropy: float  # nats, mean over samples
    diversity: float  # in [0, 1]
    repetition: float  # in [0, 1]
    samples: int
    length: int  # tokens a sample
    steps: int  # of the time grid
    evaluations: float  # of the denoiser, a sample
    precision: str  # of the token draws
    evaluator: str  # the judge, with its tokenizer
    mauve: float | None = None
    parse_rate: float | None = None

    def __post_init__(self):
        # Held-out text, the reference of a table, took no step and no evaluation.
        for name, least in (("samples", 1), ("length", 1), ("steps", 0), ("evaluations", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name}: must be at least {least}, not {getattr(self, name)}")
        for name in ("precision", "evaluator"):
            if not getattr(self, name):
                raise ValueError(f"{name}: must be named beside a generative perplexity")
        for name in ("generative_perplexity", "entropy", "diversity", "repetition"):
            if not isfinite(getattr(self, name)):
                raise ValueError(
                    f"{name}: is {getattr(self, name)}; it must be measured beside a generative perplexity"
                )


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
    parse_rate: float | None = None,
) -> Generation:
    """Score samples: entropy from their tokens, diversity and repetition from their texts, perplexity from the judge.

    `judge_tokens` are the samples in the judge's tokenizer (the samples themselves for a judge trained here; see
    `retokenize` for another); `eos` is the judge's end-of-text symbol, None when it has none.

    Raises:
      ValueError: when tokens, judge tokens and texts differ in number, or as `Generation` does.
    """
    if not len(tokens) == len(judge_tokens) == len(texts):
        raise ValueError(
            f"samples: {len(tokens)} token rows, {len(judge_tokens)} judge rows and {len(texts)} texts must be equal"
        )
    perplexity, error = generative_perplexity(judge, judge_tokens, eos=eos, batch_size=batch_size, widths=widths)
    return Generation(
        generative_perplexity=perplexity,
        generative_perplexity_sem=error,
        entropy=float(sample_entropy(tokens).mean()),
        diversity=diversity(texts),
        repetition=repetition(texts),
        samples=len(tokens),
        length=tokens.shape[1],
        steps=steps,
        evaluations=float(evaluations),
        precision=precision,
        evaluator=evaluator,
        mauve=mauve,
        parse_rate=parse_rate,
    )


def kept_targets(
    tokens: Integer[np.ndarray, "N L"], eos: int | None, widths: Int[np.ndarray, " N"] | None = None
) -> Bool[np.ndarray, "N L-1"]:
    """Which of the targets 2..L count, by the rule of the public MDLM code (arXiv 2406.07524).

    Target j counts iff it is not EOS, or the number of EOS symbols up to and including j is 1: every EOS but the first
    is dropped (also the closing one when the sequence opens with EOS), and text after it is kept. Targets at `widths`
    and beyond never count.
    """
    tokens = np.asarray(tokens)
    kept = np.ones(tokens.shape, bool)
    if eos is not None:
        is_eos = tokens == eos
        kept = ~is_eos | (np.cumsum(is_eos, axis=1) == 1)
    if widths is not None:
        kept &= np.arange(tokens.shape[1]) < np.asarray(widths)[:, None]
    return kept[:, 1:]


def generative_perplexity(
    judge: Judge,
    tokens: Integer[np.ndarray, "N L"],
    *,
    eos: int | None,
    batch_size: int,
    widths: Int[np.ndarray, " N"] | None = None,
) -> tuple[float, float]:
    """exp(total NLL of kept targets / their number), pooled over samples, and its standard error over samples.

    No sample is dropped: the last batch is filled up and the fill ignored, where the public code drops the remainder.

    Raises:
      ValueError: when no target is kept.
    """
    kept = kept_targets(tokens, eos, widths)
    if not kept.any():
        raise ValueError("samples: no token to score; they are shorter than 2 tokens or hold nothing but EOS")
    nats = -in_batches(judge, np.asarray(tokens), batch_size)[:, 1:]
    mean, error = ratio(np.where(kept, nats, 0).sum(axis=1), kept.sum(axis=1).astype(np.float64))
    return float(np.exp(mean)), float(np.exp(mean) * error)


def retokenize(
    texts: Sequence[str], encode: Callable[[str], Ids], *, length: int, eos: int, batch_size: int
) -> tuple[Int[np.ndarray, "N L"], Int[np.ndarray, " N"]]:
    """Texts as the judge's tokens: cut to `length`, padded on the right with EOS, no start symbol.

    Also the width that each row has in the public MDLM code, the longest text of its batch: the first pad of a shorter
    text that holds no EOS is scored there as its first EOS. Columns beyond the width exist for a fixed shape alone.
    """
    rows = [list(encode(text))[:length] for text in texts]
    tokens = np.full((len(rows), length), eos, np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    starts = range(0, len(rows), batch_size)
    widths = [max(map(len, rows[start : start + batch_size])) for start in starts]
    return tokens, np.repeat(widths, batch_size)[: len(rows)]


def last_features(
    hidden: Features, tokens: Integer[np.ndarray, "N L"], lengths: Int[np.ndarray, " N"], batch_size: int
) -> Float[np.ndarray, "N D"]:
    """The judge's hidden state at the last token of each sequence, the features of MAUVE."""
    tokens, last = np.asarray(tokens), np.maximum(np.asarray(lengths), 1) - 1
    parts = []
    for start in range(0, len(tokens), batch_size):
        rows = last[start : start + batch_size]
        states = in_batches(hidden, tokens[start : start + batch_size], batch_size)
        parts.append(states[np.arange(len(rows)), rows])
    return np.concatenate(parts)


def in_batches(
    function: Callable[[np.ndarray], Array | np.ndarray], array: np.ndarray, batch_size: int
) -> Float[np.ndarray, "..."]:
    """Apply to batches of one fixed shape (the last one filled with copies of its first row), in float64."""
    parts = []
    for start in range(0, len(array), batch_size):
        batch = array[start : start + batch_size]
        fill = np.repeat(batch[:1], batch_size - len(batch), axis=0)
        parts.append(np.asarray(function(np.concatenate([batch, fill])), np.float64)[: len(batch)])
    return np.concatenate(parts)


def sample_entropy(tokens: Integer[np.ndarray, "N L"]) -> Float[np.ndarray, " N"]:
    """-sum_v f_v ln f_v of each sample's own token frequencies, in nats (ReMDM, arXiv 2503.00307)."""
    entropies = []
    for row in np.asarray(tokens):
        frequency = np.unique(row, return_counts=True)[1] / len(row)
        entropies.append(-np.sum(frequency * np.log(frequency)))
    return np.abs(np.array(entropies))  # a constant row would read -0


def ngrams(text: Text, order: int) -> list[tuple]:
    """All n-grams of a text: of whitespace-separated words, or of the items of any other sequence."""
    words = text.split() if isinstance(text, str) else list(text)
    return [tuple(words[start : start + order]) for start in range(len(words) - order + 1)]


def diversity(texts: Iterable[Text], orders: Sequence[int] = (2, 3, 4)) -> float:
    """Product over n of distinct / all n-grams of the whole set (G-Star, arXiv 2510.08369), in [0, 1].

    It falls as a set grows: compare at equal number and length. A set without n-grams scores 0.
    """
    texts, product = list(texts), 1.0
    for order in orders:
        grams = [gram for text in texts for gram in ngrams(text, order)]
        product *= len(set(grams)) / max(len(grams), 1)
    return product


def repetition(texts: Iterable[Text], order: int = 4) -> float:
    """Mean over texts of 1 - distinct / all n-grams within the text, in [0, 1] (rep-n; arXiv 1908.04319).

    A text shorter than n repeats nothing.
    """
    rates = [1 - len(set(grams)) / len(grams) if (grams := ngrams(text, order)) else 0.0 for text in texts]
    return float(np.mean(rates))


def columns(record: Generation) -> dict[str, float | int | str | None]:
    """The record as the columns of a result row."""
    return {field.name: getattr(record, field.name) for field in fields(record)}
