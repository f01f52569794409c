"""Samples of molecules and genomes: a text file, an image of molecules, and their metrics."""

from collections.abc import Sequence
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Int

from diffusion.data import Dataset
from diffusion.data.tokenizers import Tokenizer
from diffusion.metrics import genomes
from diffusion.metrics.molecules import canonical_set, chemistry, molecule_scores, picture
from diffusion.metrics.text import sample_entropy
from diffusion.report import plots
from experiments.plan import atomic_write
from experiments.run_context import Run
from experiments.tasks import images, token_sampling
from experiments.tasks.token_sampling import TokenTask

LINES = True
KMER_SIZES = (3, 6)  # of the published spectra
# Bases from which reference spectra and the species model are counted: enough for 4,096 k-mers.
MAX_REFERENCE_BASES = 50_000_000
# Sources whose examples are exon, intron, exon.
SPLICED = ("splice_sites", "simple_introns")
Labels = Int[np.ndarray, " _"] | None  # one a sample, of sets that differ in size


def check_reference(run: Run) -> None:
    """Raise ValueError for splits or a judge by which samples cannot be measured."""
    dataset, options = run.dataset, run.config.judge
    if options.name != "none":
        raise ValueError(f"judge.name: {options.name!r} cannot judge {dataset.domain}; pass --config.judge.name=none")
    dataset.split("train")
    if holds_molecules(run):
        chemistry()
    else:
        dataset.split(options.reference)
    if run.config.sample.policy == "data":
        dataset.split(held_out_split(run))


def holds_molecules(run: Run) -> bool:
    """Whether the sequences are SMILES, not bases."""
    return run.dataset.domain == "molecules"


def held_out_split(run: Run) -> str:
    """Where held-out samples come from: not the training split, nor the reference's."""
    return "validation" if run.config.judge.reference == "test" else "test"


def held_out(run: Run, count: int) -> tuple[Int[np.ndarray, "N L"], Int[np.ndarray, " N"] | None]:
    """Real examples in place of generated ones, with their labels: what perfect samples would score."""
    split = run.dataset.split(held_out_split(run))
    rows = split.rows(range(min(count, len(split))))
    return rows["tokens"], rows.get("label")


def measure(run: Run, sets: Sequence[tuple[Int[np.ndarray, "_ L"], Labels]], cost: dict) -> list[dict[str, float]]:
    """Write samples.txt, one sample per line, and samples.png of molecules; return all metrics of each set of samples.

    A set is its tokens and the species that were asked for, if any: none in all sets, or some in each.

    Raises:
      ValueError: when labels and samples differ in number.
    """
    for tokens, labels in sets:
        if labels is not None and len(labels) != len(tokens):
            raise ValueError(f"sample: {len(tokens)} samples cannot have {len(labels)} labels")
    texts = [as_texts(run.dataset.tokenizer, tokens) for tokens, _ in sets]
    if holds_molecules(run):
        scores = measure_molecules(run, texts)
    else:
        scores = measure_genomes(run, texts, [labels for _, labels in sets])
    counts = [{"samples": len(tokens), "entropy": float(sample_entropy(tokens).mean())} for tokens, _ in sets]
    return [count | score for count, score in zip(counts, scores, strict=True)]


def as_texts(tokenizer: Tokenizer, tokens: Int[np.ndarray, "N L"]) -> list[str]:
    """All that is no special token, as the public code reads samples: also what stands behind the first EOS."""
    pieces = np.array([tokenizer.decode([token]) for token in range(tokenizer.pad_id + 1)], object)
    return ["".join(pieces[row]) for row in tokens]


def measure_molecules(run: Run, sets: list[list[str]]) -> list[dict[str, float]]:
    """Of each set: validity, uniqueness, novelty against the training split, and properties of the novel molecules."""
    split = run.dataset.split("train")
    training = as_texts(run.dataset.tokenizer, split.rows(range(len(split)))["tokens"])
    cache = Path(run.config.data.cache_dir or run.workdir / "cache").expanduser() / "molecules"
    known = canonical_set(training, cache)
    strings = known | set(training)
    scores = [molecule_scores(texts, known, strings) for texts in sets]
    if jax.process_index() == 0:
        atomic_write(run.folder / "samples.txt", "".join(f"{text}\n" for texts in sets for text in texts))
        draw(run.folder / "samples.png", sets[0], scores[0])
    return scores


def draw(path: Path, texts: list[str], scores: dict[str, float]) -> None:
    """The first valid molecules, under the counts of the set that they are from."""
    figure, axes = plt.subplots(figsize=(12, 7), dpi=100, layout="constrained")
    axes.axis("off")
    axes.set_title(
        f"{scores['samples']} samples: {scores['valid']} valid ({scores['samples'] - scores['valid']} invalid), "
        f"{scores['unique']} different molecules, {scores['novel']} of them new"
    )
    grid = picture(texts)
    if grid is not None:
        axes.imshow(grid)
    plots.save(figure, path)


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


TASK = TokenTask(many_sets=True, held_out=held_out, measure=measure)


def check(run: Run) -> None:
    """Raise ValueError for a sampler, prompts, counts or a judge that do not fit."""
    token_sampling.check(run, TASK)
    check_reference(run)


def sample(run: Run) -> dict:
    """Draw and measure sequences."""
    return token_sampling.draw_and_measure(run, TASK)


collect = images.collect
