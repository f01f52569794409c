"""How good outputs are against references: BLEU and chrF (sacreBLEU), exact matches, ROUGE (rouge-score)."""

import importlib.util
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from sacrebleu.metrics import BLEU, CHRF

ROUGES = ("rouge1", "rouge2", "rougeL")


class Scores(NamedTuple):
    """Measures by name, and the settings of BLEU and chrF as sacreBLEU writes them."""

    metrics: dict[str, float]
    signature: str


def check_measures(tokenize: str, rouge: bool) -> None:
    """Raise ValueError for a tokenizer that sacreBLEU does not have, and for ROUGE without its package."""
    if tokenize not in BLEU.TOKENIZERS:
        known = ", ".join(sorted(BLEU.TOKENIZERS))
        raise ValueError(f"sample.translation.tokenize: sacreBLEU knows no {tokenize!r}; known: {known}")
    if rouge and importlib.util.find_spec("rouge_score") is None:
        raise ValueError(
            "sample.translation.rouge: rouge-score is not installed; pip install rouge-score, or pass "
            "--config.sample.translation.rouge=False"
        )


def scores(
    outputs: Sequence[str], references: Sequence[Sequence[str]], tokenize: str = "13a", rouge: bool = False
) -> Scores:
    """Corpus BLEU and chrF in points, and the share of outputs that are one of their references word for word.

    Every output has one reference or several. ROUGE, in points, is the mean over outputs of the best reference's F1.
    """
    bleu, chrf = BLEU(tokenize=tokenize, force=True), CHRF()
    # sacreBLEU wants the first references of all, the second ones, ...
    streams = [list(column) for column in itertools.zip_longest(*references)]
    outputs = list(outputs)
    found = {"bleu": bleu.corpus_score(outputs, streams).score, "chrf": chrf.corpus_score(outputs, streams).score}
    pairs = list(zip(outputs, references, strict=True))
    found["exact"] = sum(words(output) in map(words, known) for output, known in pairs) / len(pairs)
    found["length_ratio"] = sum(len(words(output)) for output in outputs) / max(
        sum(len(words(known[0])) for known in references), 1
    )
    if rouge:
        found |= rouge_scores(pairs)
    return Scores(found, f"BLEU {bleu.get_signature()}; chrF {chrf.get_signature()}")


def words(text: str) -> list[str]:
    """What stands between spaces."""
    return text.split()


def rouge_scores(pairs: Sequence[tuple[str, Sequence[str]]]) -> dict[str, float]:
    """ROUGE-1, -2 and -L with Porter's stemmer."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer: Any = RougeScorer(list(ROUGES), use_stemmer=True)
    found = [scorer.score_multi(list(known), output) for output, known in pairs]
    return {name: 100 * sum(each[name].fmeasure for each in found) / len(found) for name in ROUGES}
