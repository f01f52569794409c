"""Samples of molecules: a text file, an image, and their validity, uniqueness and novelty."""

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from diffusion.data import Dataset
from diffusion.metrics.molecules import (
    canonical_set,
    molecule_grid,
    molecule_scores,
    ring_counts,
    ring_labels,
)
from diffusion.report import plots
from diffusion.storage import atomic_write, cache_of
from experiments.families.base import System
from experiments.run_context import Run
from experiments.tasks import images, rewarded_sampling, sequences, token_sampling
from experiments.tasks.sequences import SequenceSet, as_texts
from experiments.tasks.token_sampling import TokenTask

LINES = True


def measure(run: Run, sets: Sequence[SequenceSet], cost: dict) -> list[dict[str, float]]:
    """Write samples.txt, one sample per line, and samples.png; return the metrics of each set."""
    return sequences.measure_texts(run, sets, lambda texts: measure_molecules(run, texts))


def measure_molecules(run: Run, sets: list[list[str]]) -> list[dict[str, float]]:
    """Validity, uniqueness, novelty relative to the training split, and properties of novel molecules, for each set."""
    known, training = training_molecules(run.dataset, molecule_cache(run))
    strings = known | set(training)
    scores = [molecule_scores(texts, known, strings) for texts in sets]
    if jax.process_index() == 0:
        atomic_write(run.folder / "samples.txt", "".join(f"{text}\n" for texts in sets for text in texts))
        draw(run.folder / "samples.png", sets[0], scores[0])
    return scores


@lru_cache(maxsize=2)  # every job of a table asks for them
def training_molecules(dataset: Dataset, cache: Path) -> tuple[frozenset[str], list[str]]:
    """Canonical SMILES of the training split, and its strings as they are written."""
    split = dataset.split("train")
    texts = as_texts(dataset.tokenizer, split.rows(range(len(split)))["tokens"])
    return canonical_set(texts, cache), texts


def molecule_cache(run: Run) -> Path:
    """Folder of canonical sets."""
    return Path(run.config.data.cache_dir or cache_of(run.workdir)).expanduser() / "molecules"


def draw(path: Path, texts: list[str], scores: dict[str, float]) -> None:
    """Draw the first valid molecules of a set, with its counts as the title."""
    figure, axes = plt.subplots(figsize=(12, 7), dpi=100, layout="constrained")
    axes.axis("off")
    axes.set_title(
        f"{scores['samples']} samples: {scores['valid']} valid ({scores['samples'] - scores['valid']} invalid), "
        f"{scores['unique']} different molecules, {scores['novel']} of them new"
    )
    grid = molecule_grid(texts)
    if grid is not None:
        axes.imshow(grid)
    plots.save(figure, path)


def rings(run: Run, tokens: Int[np.ndarray, "N L"]) -> Float[np.ndarray, " N"]:
    """The reward of finished samples: their rings, and 0 for an invalid molecule."""
    return ring_counts(as_texts(run.dataset.tokenizer, tokens))


def labels(run: Run) -> Float[np.ndarray, "K G"]:
    """The ring label of every token. Their pairs are the reward within the sampler, where RDKit cannot read states."""
    tokenizer = run.dataset.tokenizer
    return ring_labels([tokenizer.decode([token]) for token in range(tokenizer.vocab_size)])


TASK = TokenTask(
    many_sets=True,
    held_out=sequences.held_out,
    measure=measure,
    rewarded=partial(rewarded_sampling.generate, reward=rings, labels=labels),
)


def check_config(config: ConfigDict, system: System, domain: str) -> None:
    """Raise ValueError for an unsuitable sampler, prompt, count or judge."""
    sequences.check_config(config, system, domain, TASK)


def check(run: Run) -> None:
    """Raise ValueError as `check_config`, and for a missing split or a missing package.

    Training molecules that RDKit cannot parse are counted here, before anything is trained.
    """
    token_sampling.check(run, TASK)
    rewarded_sampling.check(run)
    sequences.check_reference(run)
    training_molecules(run.dataset, molecule_cache(run))


def sample(run: Run) -> dict:
    """Draw and measure molecules."""
    return token_sampling.draw_and_measure(run, TASK)


collect = images.collect
