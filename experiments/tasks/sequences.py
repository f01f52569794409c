"""Common parts of the tasks for molecules and genomes: held-out sequences, texts, and counts."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from diffusion.data.tokenizers import Tokenizer
from diffusion.metrics.text import sample_entropy
from experiments.families.base import System
from experiments.run_context import Run
from experiments.tasks import token_sampling
from experiments.tasks.token_sampling import TokenTask

Labels = Int[np.ndarray, " _"] | None  # one per sample; sets differ in size
SequenceSet = tuple[Int[np.ndarray, "_ L"], Labels]


def check_config(config: ConfigDict, system: System, domain: str, task: TokenTask) -> None:
    """Raise ValueError for an unsuitable sampler, prompt, count or reference, or for any judge."""
    token_sampling.check_config(config, system, domain, task)
    check_judge(config.judge, domain)


def check_judge(options: ConfigDict, domain: str) -> None:
    """Raise ValueError for any judge."""
    if options.name != "none":
        raise ValueError(f"judge.name: {options.name!r} cannot judge {domain}; pass --config.judge.name=none")


def check_reference(run: Run) -> None:
    """Raise ValueError for a missing split, or for any judge."""
    check_judge(run.config.judge, run.dataset.domain)
    run.dataset.split("train")


def held_out_split(run: Run) -> str:
    """Split of held-out examples, which is neither the training split nor the reference."""
    return "validation" if run.config.judge.reference == "test" else "test"


def held_out(run: Run, count: int) -> tuple[Int[np.ndarray, "N L"], Int[np.ndarray, " N"] | None]:
    """Real examples with their labels, whose metrics are those of perfect samples."""
    split = run.dataset.split(held_out_split(run))
    rows = split.rows(range(min(count, len(split))))
    return rows["tokens"], rows.get("label")


def measure_texts(
    run: Run, sets: Sequence[SequenceSet], measure: Callable[[list[list[str]]], list[dict[str, float]]]
) -> list[dict[str, float]]:
    """Sizes and entropies of sets of samples, and the metrics of their texts.

    A set consists of tokens and the labels on which they are conditioned; either all sets have labels, or none has.

    Raises:
      ValueError: if the numbers of labels and samples differ.
    """
    for tokens, labels in sets:
        if labels is not None and len(labels) != len(tokens):
            raise ValueError(f"sample: {len(tokens)} samples cannot have {len(labels)} labels")
    scores = measure([as_texts(run.dataset.tokenizer, tokens) for tokens, _ in sets])
    counts = [{"samples": len(tokens), "entropy": float(sample_entropy(tokens).mean())} for tokens, _ in sets]
    return [count | score for count, score in zip(counts, scores, strict=True)]


def as_texts(tokenizer: Tokenizer, tokens: Int[np.ndarray, "N L"]) -> list[str]:
    """Texts of all tokens that are not special, as in the public code: also of those after the first EOS."""
    pieces = np.array([tokenizer.decode([token]) for token in range(tokenizer.pad_id + 1)], object)
    return ["".join(pieces[row]) for row in tokens]
