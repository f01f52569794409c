"""Choosing among candidates of one sentence: by their agreement with one another, or by a judge."""

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from sacrebleu.metrics.bleu import BLEU

# Which candidate is the reference: Difformer scores candidate i as the reference of the others, DINOISER as their
# hypothesis.
Role = Literal["reference", "hypothesis"]


def agreement(candidates: Sequence[str], role: Role = "reference", tokenize: str = "none") -> np.ndarray:
    """mean_{j != i} sentence BLEU of candidate i with candidate j, in points; -inf for an empty candidate.

    Empty candidates are no partners either; the only one left has agreement 0.
    """
    metric = BLEU(tokenize=tokenize, effective_order=True)
    spoken = [index for index, text in enumerate(candidates) if text.strip()]
    scores = np.full(len(candidates), -np.inf)
    for mine in spoken:
        found = []
        for other in spoken:
            if other != mine:
                pair = (other, mine) if role == "reference" else (mine, other)
                found.append(metric.sentence_score(candidates[pair[0]], [candidates[pair[1]]]).score)
        scores[mine] = np.mean(found) if found else 0.0
    return scores


def bleu_mbr(groups: Sequence[Sequence[str]], role: Role = "reference", tokenize: str = "none") -> list[int]:
    """For every sentence the candidate of the largest agreement, the first of equals (minimum Bayes risk)."""
    return [int(np.argmax(agreement(group, role, tokenize))) for group in groups]


def judged(
    sources: Sequence[str], groups: Sequence[Sequence[str]], judge: Callable[[list[str], list[str]], Sequence[float]]
) -> list[int]:
    """For every sentence the candidate that `judge(sources, candidates)` scores highest, empty ones last.

    The judge scores all candidates of all sentences in one call, as log-likelihoods under another model.
    Raises:
      ValueError: when it does not give one score a candidate.
    """
    flat = [text for group in groups for text in group]
    told = [source for source, group in zip(sources, groups, strict=True) for _ in group]
    scores = np.asarray(judge(told, flat), np.float64)
    if scores.shape != (len(flat),):
        raise ValueError(f"sample.rerank: the judge gave {scores.shape} scores for {len(flat)} candidates")
    scores = np.where([bool(text.strip()) for text in flat], scores, -np.inf)
    ends = np.cumsum([0, *map(len, groups)])
    return [int(np.argmax(scores[start:stop])) for start, stop in itertools.pairwise(ends)]
