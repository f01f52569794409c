"""Samples of genomes: a text file, k-mer spectra, the splice rule, species, and a discriminator."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from diffusion.data import Dataset
from diffusion.metrics import genomes
from diffusion.storage import atomic_write
from experiments.families.base import System
from experiments.run_context import Run
from experiments.tasks import images, sequences, token_sampling
from experiments.tasks.sequences import Labels, SequenceSet, as_texts
from experiments.tasks.token_sampling import TokenTask

LINES = True
KMER_SIZES = (3, 6)  # those of the published spectra
# Limit on the bases for reference spectra and the species model, which suffices for 4,096 k-mers.
MAX_REFERENCE_BASES = 50_000_000
# Sources whose examples are exon, intron, exon.
SPLICED = ("splice_sites", "simple_introns")


def measure(run: Run, sets: Sequence[SequenceSet], cost: dict) -> list[dict[str, float]]:
    """Write samples.txt, one sample per line; return the metrics of each set."""
    labels = [each[1] for each in sets]
    return sequences.measure_texts(run, sets, lambda texts: measure_genomes(run, texts, labels))


def measure_genomes(run: Run, sets: list[list[str]], labels: list[Labels]) -> list[dict[str, float]]:
    """Distances of k-mer spectra from `judge.reference`, splice rule, species and discriminator, for each set.

    With labels, samples are compared with the reference of the same species, and distances are also given by species.
    """
    dataset = run.dataset
    assert isinstance(dataset, Dataset)
    names = dataset.label_names or tuple(map(str, range(dataset.labels)))
    if jax.process_index() == 0:
        atomic_write(run.folder / "samples.txt", "".join(map(as_lines, sets, labels, [names] * len(sets))))
    reference_texts, reference_labels = split_texts(run, run.config.judge.reference)
    labeled = labels[0] is not None
    reference = grouped(reference_texts, reference_labels if labeled else None, names)
    reference_metrics = {}
    if labeled:
        training = grouped(*split_texts(run, "train"), names)
        model = genomes.species_model({name: training.get(name, []) for name in names})
        correct = genomes.predict_species(reference_texts, model) == reference_labels
        reference_metrics["species_accuracy_real"] = float(np.mean(correct))
    scores = []
    for texts, species in zip(sets, labels, strict=True):
        generated = grouped(texts, species, names)
        metrics = spectra(generated, reference) | reference_metrics
        if dataset.source in SPLICED:
            metrics |= splicing(texts, generated)
        if species is not None:
            predicted = genomes.predict_species(texts, model)
            metrics["species_accuracy"] = float(np.mean(predicted == species))
            metrics["species_f1"] = genomes.macro_f1(np.asarray(species), predicted)
        scores.append(metrics | discriminator(generated, reference))
    return scores


def as_lines(texts: list[str], labels: Labels, names: tuple[str, ...]) -> str:
    """Lines of samples, each after the species on which it is conditioned."""
    if labels is None:
        return "".join(f"{text}\n" for text in texts)
    return "".join(f"{names[label]}\t{text}\n" for label, text in zip(labels, texts, strict=True))


def spectra(generated: genomes.Groups, reference: genomes.Groups) -> dict[str, float]:
    """Distances of k-mer spectra by species, and their weighted mean."""
    metrics: dict[str, float] = {}
    for k in KMER_SIZES:
        mean, each = genomes.species_distances(generated, reference, k)
        metrics |= {f"kmer{k}_distance": mean} | by_species(f"kmer{k}_distance", each)
    return metrics


def splicing(texts: list[str], generated: genomes.Groups) -> dict[str, float]:
    """Share of samples that satisfy the splice rule, also by species, and shares for donor and acceptor sites."""
    shares = {name: float(np.mean([*map(genomes.splice_rule, group)])) for name, group in generated.items()}
    parts = {"splice_rule": genomes.splice_rule, "donor": genomes.donor, "acceptor": genomes.acceptor}
    whole = {name: float(np.mean([*map(holds, texts)])) for name, holds in parts.items()}
    return whole | by_species("splice_rule", shares)


def discriminator(generated: genomes.Groups, reference: genomes.Groups) -> dict[str, float]:
    """AUROC of a discriminator of real and generated sequences, with equal numbers of each species on both sides.

    With unequal numbers the mixture of species would separate them. Empty for fewer than 4 sequences per side.
    """
    sizes = {name: min(len(group), len(reference[name])) for name, group in generated.items()}
    if sum(sizes.values()) < 4:
        return {}

    def balanced(groups: genomes.Groups) -> list[str]:
        return [text for name, size in sizes.items() for text in groups[name][:size]]

    return {"kmer_auroc": genomes.kmer_auroc(balanced(reference), balanced(generated))}


def split_texts(run: Run, name: str) -> tuple[list[str], Int[np.ndarray, " N"] | None]:
    """Sequences of a split with their labels, up to `MAX_REFERENCE_BASES` bases."""
    split = run.dataset.split(name)
    rows = split.rows(range(min(len(split), max(1, MAX_REFERENCE_BASES // run.dataset.length))))
    return as_texts(run.dataset.tokenizer, rows["tokens"]), rows.get("label")


def grouped(texts: list[str], labels: Labels, names: tuple[str, ...]) -> dict[str, list[str]]:
    """Texts by the name of their label, in the order of the names; without labels one group."""
    if labels is None:
        return {"": texts}
    groups: dict[str, list[str]] = {name: [] for name in names}
    for text, label in zip(texts, labels, strict=True):
        groups[names[label]].append(text)
    return {name: group for name, group in groups.items() if group}


def by_species(metric: str, each: dict[str, float]) -> dict[str, float]:
    """Metric per species, without the group that has no name."""
    return {f"{metric}/{name}": value for name, value in each.items() if name}


TASK = TokenTask(many_sets=True, held_out=sequences.held_out, measure=measure)


def check_config(config: ConfigDict, system: System, domain: str) -> None:
    """Raise ValueError for an unsuitable sampler, prompt, count or judge."""
    sequences.check_config(config, system, domain, TASK)


def check(run: Run) -> None:
    """Raise ValueError as `check_config`, and for a missing split."""
    token_sampling.check(run, TASK)
    sequences.check_reference(run)
    run.dataset.split(run.config.judge.reference)


def sample(run: Run) -> dict:
    """Draw and measure genomes."""
    return token_sampling.draw_and_measure(run, TASK)


collect = images.collect
