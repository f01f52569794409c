"""What the verb `sample` makes of molecules and genomes: a text file, a picture of molecules, and their measures."""

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
from experiments.run_context import Context

SCIENCES = ("molecules", "genomes")  # the domains that are measured here
WORDS = (3, 6)  # lengths of the published k-mer spectra
# Letters from which reference spectra and the species model are counted: enough for 4,096 words.
LETTERS = 50_000_000
# Sources whose examples are exon, intron, exon.
SPLICED = ("splice_sites", "simple_introns")
Labels = Int[np.ndarray, " _"] | None  # one a sample, of sets that differ in size


def check(job: Context) -> None:
    """Raise ValueError for what cannot be measured, before anything is trained."""
    dataset, options = job.dataset, job.config.judge
    if dataset.domain not in SCIENCES:
        raise ValueError(f"data.source: {dataset.source} holds {dataset.domain}, neither molecules nor genomes")
    if options.name != "none":
        raise ValueError(f"judge.name: {options.name!r} cannot judge {dataset.domain}; pass --config.judge.name=none")
    dataset.split("train")
    if dataset.domain == "molecules":
        chemistry()
    else:
        dataset.split(options.reference)
    if job.config.sample.policy == "data":
        dataset.split(held_out_split(job))


def held_out_split(job: Context) -> str:
    """Where held-out samples come from: not the training split, nor the reference's."""
    return "validation" if job.config.judge.reference == "test" else "test"


def held_out(job: Context, count: int) -> tuple[Int[np.ndarray, "N L"], Int[np.ndarray, " N"] | None]:
    """Real examples in place of generated ones, with their labels: what perfect samples would score."""
    split = job.dataset.split(held_out_split(job))
    rows = split.rows(range(min(count, len(split))))
    return rows["tokens"], rows.get("label")


def measure(job: Context, sets: Sequence[tuple[Int[np.ndarray, "_ L"], Labels]]) -> list[dict[str, float]]:
    """Write samples.txt, one sample a line, and samples.png of molecules; return all measures of each set of samples.

    A set is its tokens and the species that were asked for, if any: none in all sets, or some in each.

    Raises:
      ValueError: when labels and samples differ in number.
    """
    for tokens, labels in sets:
        if labels is not None and len(labels) != len(tokens):
            raise ValueError(f"sample: {len(tokens)} samples cannot have {len(labels)} labels")
    texts = [as_texts(job.dataset.tokenizer, tokens) for tokens, _ in sets]
    if job.dataset.domain == "molecules":
        scores = measure_molecules(job, texts)
    else:
        scores = measure_genomes(job, texts, [labels for _, labels in sets])
    counts = [{"samples": len(tokens), "entropy": float(sample_entropy(tokens).mean())} for tokens, _ in sets]
    return [count | score for count, score in zip(counts, scores, strict=True)]


def as_texts(tokenizer: Tokenizer, tokens: Int[np.ndarray, "N L"]) -> list[str]:
    """All that is no special token, as the public code reads samples: also what stands behind the first EOS."""
    pieces = np.array([tokenizer.decode([token]) for token in range(tokenizer.pad_id + 1)], object)
    return ["".join(pieces[row]) for row in tokens]


def measure_molecules(job: Context, sets: list[list[str]]) -> list[dict[str, float]]:
    """Of each set: validity, uniqueness, novelty against the training split, and properties of the novel molecules."""
    split = job.dataset.split("train")
    training = as_texts(job.dataset.tokenizer, split.rows(range(len(split)))["tokens"])
    cache = Path(job.config.data.cache_dir or job.workdir / "cache").expanduser() / "molecules"
    known = canonical_set(training, cache)
    strings = known | set(training)
    scores = [molecule_scores(texts, known, strings) for texts in sets]
    if jax.process_index() == 0:
        atomic_write(job.folder / "samples.txt", "".join(f"{text}\n" for texts in sets for text in texts))
        draw(job.folder / "samples.png", sets[0], scores[0])
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


def measure_genomes(job: Context, sets: list[list[str]], labels: list[Labels]) -> list[dict[str, float]]:
    """Of each set: distances of k-mer spectra from `judge.reference`, the splice rule, species, and the discriminator.

    With labels every species is compared with its own, and distances are also given by species.
    """
    dataset = job.dataset
    assert isinstance(dataset, Dataset)
    names = dataset.label_names or tuple(map(str, range(dataset.labels)))
    if jax.process_index() == 0:
        atomic_write(job.folder / "samples.txt", "".join(map(as_lines, sets, labels, [names] * len(sets))))
    real_texts, real_labels = real(job, job.config.judge.reference)
    labeled = labels[0] is not None
    reference = grouped(real_texts, real_labels if labeled else None, names)
    known = {}
    if labeled:
        training = grouped(*real(job, "train"), names)
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
    for k in WORDS:
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


def real(job: Context, name: str) -> tuple[list[str], Int[np.ndarray, " N"] | None]:
    """Sequences of a split with their labels; of a long one the first `LETTERS` letters."""
    split = job.dataset.split(name)
    rows = split.rows(range(min(len(split), max(1, LETTERS // job.dataset.length))))
    return as_texts(job.dataset.tokenizer, rows["tokens"]), rows.get("label")


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
