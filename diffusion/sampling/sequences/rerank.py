"""Re-ranking of candidates: minimum Bayes risk decoding with BLEU, or the scores of another model."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from sacrebleu.metrics.bleu import BLEU


def agreement(candidates: Sequence[str], tokenize: str = "none") -> np.ndarray:
    """Return the mean over j != i of the sentence BLEU of candidate j with reference i, in points, for every i.

    This is the rule of Difformer; that of DINOISER, with j as the reference, is not offered. Empty candidates are
    excluded from the mean and have -inf. If only one candidate is not empty, it has 0.
    """
    metric = BLEU(tokenize=tokenize, effective_order=True)
    indices = [index for index, text in enumerate(candidates) if text.strip()]
    scores = np.full(len(candidates), -np.inf)
    for i in indices:
        values = [metric.sentence_score(candidates[j], [candidates[i]]).score for j in indices if j != i]
        scores[i] = np.mean(values) if values else 0.0
    return scores


def bleu_mbr(groups: Sequence[Sequence[str]], tokenize: str = "none") -> list[int]:
    """Return the index of the candidate with the largest agreement for every sentence (minimum Bayes risk)."""
    return [int(np.argmax(agreement(group, tokenize))) for group in groups]


def judged(
    sources: Sequence[str], groups: Sequence[Sequence[str]], judge: Callable[[list[str], list[str]], Sequence[float]]
) -> list[int]:
    """Return the index of the candidate with the largest score of `judge(sources, candidates)`, for every sentence.

    The judge scores all candidates of all sentences in one call, for example with log-likelihoods under another model.
    An empty candidate has -inf.

    Raises:
      ValueError: if the judge does not return one score per candidate.
    """
    flat = [text for group in groups for text in group]
    repeated = [source for source, group in zip(sources, groups, strict=True) for _ in group]
    scores = np.asarray(judge(repeated, flat), np.float64)
    if scores.shape != (len(flat),):
        raise ValueError(f"sample.rerank: the judge gave {scores.shape} scores for {len(flat)} candidates")
    scores = np.where([bool(text.strip()) for text in flat], scores, -np.inf)
    ends = np.cumsum([0, *map(len, groups)])
    return [int(np.argmax(scores[start:stop])) for start, stop in itertools.pairwise(ends)]
