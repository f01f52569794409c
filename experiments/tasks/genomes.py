"""Samples of genomes: a text file, k-mer spectra, the splice rule, species, and a discriminator."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int

from diffusion.data import Dataset
from diffusion.metrics import genomes
from experiments.plan import atomic_write
from experiments.run_context import Run
from experiments.tasks import images, sequences, token_sampling
from experiments.tasks.sequences import Labels, SequenceSet, as_texts
from experiments.tasks.token_sampling import TokenTask

LINES = True
KMER_SIZES = (3, 6)  # of the published spectra
# Bases from which reference spectra and the species model are counted: enough for 4,096 k-mers.
MAX_REFERENCE_BASES = 50_000_000
# Sources whose examples are exon, intron, exon.
SPLICED = ("splice_sites", "simple_introns")


def measure(run: Run, sets: Sequence[SequenceSet], cost: dict) -> list[dict[str, float]]:
    """Write samples.txt, one sample per line; return the metrics of each set."""
    labels = [each[1] for each in sets]
    return sequences.measure_texts(run, sets, lambda texts: measure_genomes(run, texts, labels))


def measure_genomes(run: Run, sets: list[list[str]], labels: list[Labels]) -> list[dict[str, float]]:
    """Of each set: distances of k-mer spectra from `judge.reference`, the splice rule, species, and the discriminator.

    With labels every species is compared with its own, and distances are also given by species.
    """
    dataset = run.dataset
    assert isinstance(dataset, Dataset)
    names = dataset.label_names or tuple(map(str, range(dataset.labels)))
    if jax.process_index() == 0:
        atomic_write(run.folder / "samples.txt", "".join(map(as_lines, sets, labels, [names] * len(sets))))
    real_texts, real_labels = real(run, run.config.judge.reference)
    labeled = labels[0] is not None
    reference = grouped(real_texts, real_labels if labeled else None, names)
    known = {}
    if labeled:
        training = grouped(*real(run, "train"), names)
        model = genomes.species_model({name: training.get(name, []) for name in names})
        right = genomes.predict_species(real_texts, model) == real_labels
        known["species_accuracy_real"] = float(np.mean(right))
    scores = []
    for texts, asked in zip(sets, labels, strict=True):
        generated = grouped(texts, asked, names)
        metrics = spectra(generated, reference) | known
        if dataset.source in SPLICED:
            metrics |= splicing(texts, generated)
        if asked is not None:
            found = genomes.predict_species(texts, model)
            metrics["species_accuracy"] = float(np.mean(found == asked))
            metrics["species_f1"] = genomes.macro_f1(np.asarray(asked), found)
        scores.append(metrics | discriminator(generated, reference))
    return scores


def as_lines(texts: list[str], labels: Labels, names: tuple[str, ...]) -> str:
    """One sample a line, behind the species that it was asked to be of."""
    if labels is None:
        return "".join(f"{text}\n" for text in texts)
    return "".join(f"{names[label]}\t{text}\n" for label, text in zip(labels, texts, strict=True))


def spectra(generated: genomes.Groups, reference: genomes.Groups) -> dict[str, float]:
    """Distances of k-mer spectra: of each species, and weighted over them."""
    metrics: dict[str, float] = {}
    for k in KMER_SIZES:
        mean, each = genomes.species_distances(generated, reference, k)
        metrics |= {f"kmer{k}_distance": mean} | by_species(f"kmer{k}_distance", each)
    return metrics


def splicing(texts: list[str], generated: genomes.Groups) -> dict[str, float]:
    """Share of the samples that keep the splice rule, also by species, and its two ends."""
    shares = {name: float(np.mean([*map(genomes.splice_rule, group)])) for name, group in generated.items()}
    parts = {"splice_rule": genomes.splice_rule, "donor": genomes.donor, "acceptor": genomes.acceptor}
    whole = {name: float(np.mean([*map(holds, texts)])) for name, holds in parts.items()}
    return whole | by_species("splice_rule", shares)


def discriminator(generated: genomes.Groups, reference: genomes.Groups) -> dict[str, float]:
    """How well real and generated sequences can be told apart, from as many of each species on both sides.

    Otherwise the discriminator would tell them by the mixture. Nothing for fewer than 4 a side.
    """
    sizes = {name: min(len(group), len(reference[name])) for name, group in generated.items()}
    if sum(sizes.values()) < 4:
        return {}

    def some(groups: genomes.Groups) -> list[str]:
        return [text for name, size in sizes.items() for text in groups[name][:size]]

    return {"kmer_auroc": genomes.kmer_auroc(some(reference), some(generated))}


def real(run: Run, name: str) -> tuple[list[str], Int[np.ndarray, " N"] | None]:
    """Sequences of a split with their labels; of a long one the first `MAX_REFERENCE_BASES` bases."""
    split = run.dataset.split(name)
    rows = split.rows(range(min(len(split), max(1, MAX_REFERENCE_BASES // run.dataset.length))))
    return as_texts(run.dataset.tokenizer, rows["tokens"]), rows.get("label")


def grouped(texts: list[str], labels: Labels, names: tuple[str, ...]) -> dict[str, list[str]]:
    """Texts by the name of their label, in the order of the labels; all in one group without labels."""
    if labels is None:
        return {"": texts}
    groups: dict[str, list[str]] = {name: [] for name in names}
    for text, label in zip(texts, labels, strict=True):
        groups[names[label]].append(text)
    return {name: group for name, group in groups.items() if group}


def by_species(metric: str, each: dict[str, float]) -> dict[str, float]:
    """One metric a species; none for the group without a name."""
    return {f"{metric}/{name}": value for name, value in each.items() if name}


TASK = TokenTask(many_sets=True, held_out=sequences.held_out, measure=measure)


def check(run: Run) -> None:
    """Raise ValueError for a sampler, prompts, counts, splits or a judge that do not fit."""
    token_sampling.check(run, TASK)
    sequences.check_reference(run)
    run.dataset.split(run.config.judge.reference)


def sample(run: Run) -> dict:
    """Draw and measure genomes."""
    return token_sampling.draw_and_measure(run, TASK)


collect = images.collect
