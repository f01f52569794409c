"""Common parts of the tasks of molecules and genomes: held-out sequences, texts, and counts."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

from diffusion.data.tokenizers import Tokenizer
from diffusion.metrics.text import sample_entropy
from experiments.run_context import Run

Labels = Int[np.ndarray, " _"] | None  # one per sample; sets differ in size
SequenceSet = tuple[Int[np.ndarray, "_ L"], Labels]


def check_reference(run: Run) -> None:
    """Raise ValueError for splits or a judge by which samples cannot be measured."""
    dataset, options = run.dataset, run.config.judge
    if options.name != "none":
        raise ValueError(f"judge.name: {options.name!r} cannot judge {dataset.domain}; pass --config.judge.name=none")
    dataset.split("train")
    if run.config.sample.policy == "data":
        dataset.split(held_out_split(run))


def held_out_split(run: Run) -> str:
    """The split of held-out samples, which is neither that of training nor the reference."""
    return "validation" if run.config.judge.reference == "test" else "test"


def held_out(run: Run, count: int) -> tuple[Int[np.ndarray, "N L"], Int[np.ndarray, " N"] | None]:
    """Real examples with their labels, which score what perfect samples would."""
    split = run.dataset.split(held_out_split(run))
    rows = split.rows(range(min(count, len(split))))
    return rows["tokens"], rows.get("label")


def measure_texts(
    run: Run, sets: Sequence[SequenceSet], measure: Callable[[list[list[str]]], list[dict[str, float]]]
) -> list[dict[str, float]]:
    """Sizes and entropies of sets of samples, and the metrics of their texts.

    A set is its tokens and the labels on which they are conditioned, if any: none in all sets, or some in each.

    Raises:
      ValueError: when labels and samples differ in number.
    """
    for tokens, labels in sets:
        if labels is not None and len(labels) != len(tokens):
            raise ValueError(f"sample: {len(tokens)} samples cannot have {len(labels)} labels")
    scores = measure([as_texts(run.dataset.tokenizer, tokens) for tokens, _ in sets])
    counts = [{"samples": len(tokens), "entropy": float(sample_entropy(tokens).mean())} for tokens, _ in sets]
    return [count | score for count, score in zip(counts, scores, strict=True)]


def as_texts(tokenizer: Tokenizer, tokens: Int[np.ndarray, "N L"]) -> list[str]:
    """All tokens that are not special, as the public code reads samples: also those behind the first EOS."""
    pieces = np.array([tokenizer.decode([token]) for token in range(tokenizer.pad_id + 1)], object)
    return ["".join(pieces[row]) for row in tokens]
