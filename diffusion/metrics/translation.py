"""How good outputs are against references: BLEU and chrF (sacreBLEU), exact matches, ROUGE (rouge-score), BERTScore.

rouge-score and bert-score are optional: the latter brings PyTorch and transformers, and reads a model from a folder.
"""

import importlib.util
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

ROUGES = ("rouge1", "rouge2", "rougeL")


class Scores(NamedTuple):
    """Measures by name, and the settings of BLEU and chrF as sacreBLEU writes them."""

    metrics: dict[str, float]
    signature: str


def check_measures(tokenize: str, rouge: bool, bertscore: str = "") -> None:
    """Raise ValueError for a tokenizer that sacreBLEU does not have, and for measures without package or model."""
    if tokenize not in BLEU.TOKENIZERS:
        known = ", ".join(sorted(BLEU.TOKENIZERS))
        raise ValueError(f"sample.translation.tokenize: sacreBLEU knows no {tokenize!r}; known: {known}")
    if rouge and importlib.util.find_spec("rouge_score") is None:
        raise ValueError(
            "sample.translation.rouge: rouge-score is not installed; pip install rouge-score, or pass "
            "--config.sample.translation.rouge=False"
        )
    if not bertscore:
        return
    if not (Path(bertscore).expanduser() / "config.json").is_file():
        raise ValueError(
            f"sample.translation.bertscore: {bertscore!r} has no config.json; name the folder of a transformers model, "
            "or leave it empty"
        )
    if importlib.util.find_spec("bert_score") is None:
        raise ValueError(
            "sample.translation.bertscore: bert-score is not installed; pip install bert-score, or leave it empty"
        )


def scores(
    outputs: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenize: str = "13a",
    rouge: bool = False,
    bertscore: str = "",
    layer: int = 40,
) -> Scores:
    """Corpus BLEU and chrF in points, and the share of outputs that are one of their references word for word.

    Every output has one reference or several. ROUGE, in points, is the mean over outputs of the best reference's F1,
    and so is BERTScore, by the model in the folder `bertscore`.
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
    if bertscore:
        found["bertscore"] = bert_score(pairs, bertscore, layer)
    return Scores(found, f"BLEU {bleu.get_signature()}; chrF {chrf.get_signature()}")


def words(text: str) -> list[str]:
    """What stands between spaces."""
    return text.split()


def rouge_scores(pairs: Sequence[tuple[str, Sequence[str]]]) -> dict[str, float]:
    """ROUGE-1, -2 and -L with Porter's stemmer."""
    from rouge_score.rouge_scorer import RougeScorer  # pyright: ignore[reportMissingImports]

    scorer: Any = RougeScorer(list(ROUGES), use_stemmer=True)
    found = [scorer.score_multi(list(known), output) for output, known in pairs]
    return {name: 100 * sum(each[name].fmeasure for each in found) / len(found) for name in ROUGES}


def bert_score(pairs: Sequence[tuple[str, Sequence[str]]], folder: str, layer: int) -> float:
    """Mean F1 of the best reference by greedy matching of embeddings (arXiv 1904.09675), in points, not rescaled."""
    from bert_score import BERTScorer  # pyright: ignore[reportMissingImports]

    path = str(Path(folder).expanduser())
    # There is no baseline of a folder, nor is one used; without a name the library would look for one.
    scorer: Any = BERTScorer(model_type=path, num_layers=layer, baseline_path=path)
    # Many models' tokenizers, the published one's too, do not say how much the model reads, and then none truncates.
    tokenizer, longest = scorer._tokenizer, scorer._model.config.max_position_embeddings
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    outputs, references = zip(*pairs, strict=True)
    _, _, best = scorer.score(list(outputs), [list(known) for known in references])
    return 100 * float(best.mean())
