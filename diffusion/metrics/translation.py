"""Agreement of outputs with references: BLEU and chrF (sacreBLEU), exact matches, ROUGE (rouge-score), BERTScore.

rouge-score and bert-score are optional; the latter requires PyTorch and transformers, and reads a model from a folder.
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
    """Checks that the tokenizer, the packages and the model of the measures are available.

    Raises:
      ValueError: for a tokenizer that sacreBLEU lacks, or a measure whose package or model is missing.
    """
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
    """Corpus BLEU and chrF in points, the share of outputs equal to a reference word by word, and the length ratio.

    Each output has one or more references. ROUGE and BERTScore, in points, are means over outputs of the F1 of the best
    reference; BERTScore uses the model in the folder `bertscore`.
    """
    bleu, chrf = BLEU(tokenize=tokenize, force=True), CHRF()
    # sacreBLEU takes the first references of all outputs, then the second ones, ...
    streams = [list(column) for column in itertools.zip_longest(*references)]
    outputs = list(outputs)
    metrics = {"bleu": bleu.corpus_score(outputs, streams).score, "chrf": chrf.corpus_score(outputs, streams).score}
    pairs = list(zip(outputs, references, strict=True))
    metrics["exact"] = sum(output.split() in map(str.split, known) for output, known in pairs) / len(pairs)
    output_words = sum(len(output.split()) for output in outputs)
    reference_words = sum(len(known[0].split()) for known in references)
    metrics["length_ratio"] = output_words / max(reference_words, 1)
    if rouge:
        metrics |= rouge_scores(pairs)
    if bertscore:
        metrics["bertscore"] = bert_score(pairs, bertscore, layer)
    return Scores(metrics, f"BLEU {bleu.get_signature()}; chrF {chrf.get_signature()}")


def rouge_scores(pairs: Sequence[tuple[str, Sequence[str]]]) -> dict[str, float]:
    """Mean F1 of ROUGE-1, -2 and -L with Porter's stemmer, by the best reference, in points."""
    from rouge_score.rouge_scorer import RougeScorer  # pyright: ignore[reportMissingImports]

    scorer: Any = RougeScorer(list(ROUGES), use_stemmer=True)
    scores = [scorer.score_multi(list(known), output) for output, known in pairs]
    return {name: 100 * sum(each[name].fmeasure for each in scores) / len(scores) for name in ROUGES}


def bert_score(pairs: Sequence[tuple[str, Sequence[str]]], folder: str, layer: int) -> float:
    """Mean F1 of the best reference by greedy matching of embeddings (arXiv 1904.09675), in points, not rescaled."""
    from bert_score import BERTScorer  # pyright: ignore[reportMissingImports]

    path = str(Path(folder).expanduser())
    # No baseline is used, but without a path the library would look for one by the name of the model.
    scorer: Any = BERTScorer(model_type=path, num_layers=layer, baseline_path=path)
    # Many tokenizers, such as that of the published model, do not state a maximal length and would not truncate.
    tokenizer, longest = scorer._tokenizer, scorer._model.config.max_position_embeddings
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    outputs, references = zip(*pairs, strict=True)
    _, _, best = scorer.score(list(outputs), [list(known) for known in references])
    return 100 * float(best.mean())
