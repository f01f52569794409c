"""What the verb `sample` makes of molecules and genomes: a text file, a picture of molecules, and their measures."""

from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Int

from diffusion.data.tokenizers import Tokenizer
from diffusion.evaluate import genomes
from diffusion.evaluate.generation import sample_entropy
from diffusion.evaluate.molecules import canonical_set, chemistry, molecule_scores, picture
from diffusion.report import plots
from experiments.context import Context
from experiments.jobs import Job, atomic_write

WORDS = (3, 6)  # lengths of the published k-mer spectra
# Letters from which reference spectra and the species model are counted: enough for 4,096 words.
LETTERS = 50_000_000


def check(job: Context) -> None:
    """Raise ValueError for what cannot be measured, before anything is trained."""
    dataset, options = job.dataset, job.config.judge
    if dataset.domain not in ("molecules", "genomes"):
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


def held_out(job: Context, count: int) -> tuple[Int[np.ndarray, "N L"], Int[np.ndarray, "N"] | None]:
    """Real examples in place of generated ones, with their labels: what perfect samples would score."""
    split = job.dataset.split(held_out_split(job))
    rows = split.rows(range(min(count, len(split))))
    return rows["tokens"], rows.get("label")


def measure(
    job: Context, spec: Job, tokens: Int[np.ndarray, "N L"], labels: Int[np.ndarray, "N"] | None
) -> dict[str, float]:
    """Write samples.txt, one sample a line, and samples.png of molecules; return all measures of the samples.

    `labels` are the species that were asked for, if any.

    Raises:
      ValueError: when labels and samples differ in number.
    """
    del spec
    if labels is not None and len(labels) != len(tokens):
        raise ValueError(f"sample: {len(tokens)} samples cannot have {len(labels)} labels")
    texts = as_texts(job.dataset.tokenizer, tokens)
    metrics = {"samples": len(texts), "entropy": float(sample_entropy(tokens).mean())}
    if job.dataset.domain == "molecules":
        return metrics | measure_molecules(job, texts)
    return metrics | measure_genomes(job, texts, labels)


def as_texts(tokenizer: Tokenizer, tokens: Int[np.ndarray, "N L"]) -> list[str]:
    """All that is no special token, as the public code reads samples: also what stands behind the first EOS."""
    pieces = np.array([tokenizer.decode([token]) for token in range(tokenizer.pad_id + 1)], object)
    return ["".join(pieces[row]) for row in tokens]


def measure_molecules(job: Context, texts: list[str]) -> dict[str, float]:
    """Validity, uniqueness, novelty against the training split, and the properties of the novel molecules."""
    split = job.dataset.split("train")
    training = as_texts(job.dataset.tokenizer, split.rows(range(len(split)))["tokens"])
    cache = Path(job.config.data.cache_dir or job.workdir / "cache").expanduser() / "molecules"
    known = canonical_set(training, cache)
    scores = molecule_scores(texts, known, known | set(training))
    if jax.process_index() == 0:
        atomic_write(job.folder / "samples.txt", "".join(f"{text}\n" for text in texts))
        draw(job.folder / "samples.png", texts, scores)
    return scores


def draw(path: Path, texts: list[str], scores: dict[str, float]) -> None:
    """The first valid molecules, under the counts of all samples."""
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


def measure_genomes(job: Context, texts: list[str], labels: Int[np.ndarray, "N"] | None) -> dict[str, float]:
    """Distances of k-mer spectra from `judge.reference`, the splice rule, asked-for species, and the discriminator.

    With labels every species is compared with its own, and distances are also given by species.
    """
    dataset, options = job.dataset, job.config.judge
    names = dataset.label_names or tuple(map(str, range(dataset.labels)))
    species = None if labels is None else [names[label] for label in labels]
    if jax.process_index() == 0:
        lines = texts if species is None else [f"{name}\t{text}" for name, text in zip(species, texts, strict=True)]
        atomic_write(job.folder / "samples.txt", "".join(f"{line}\n" for line in lines))
    generated = grouped(texts, labels, names)
    real_texts, real_labels = real(job, options.reference)
    reference = grouped(real_texts, None if labels is None else real_labels, names)
    metrics: dict[str, float] = {}
    for k in WORDS:
        mean, each = genomes.species_distances(generated, reference, k)
        metrics |= {f"kmer{k}_distance": mean} | by_species(f"kmer{k}_distance", each)
    if dataset.source == "splice_sites":
        metrics["splice_rule"] = float(np.mean([genomes.splice_rule(text) for text in texts]))
        shares = {name: float(np.mean([*map(genomes.splice_rule, group)])) for name, group in generated.items()}
        metrics |= by_species("splice_rule", shares)
    if labels is not None:
        training = grouped(*real(job, "train"), names)
        model = genomes.species_model({name: training.get(name, []) for name in names})
        found = genomes.predict_species(texts, model)
        metrics |= {
            "species_accuracy": float(np.mean(found == labels)),
            "species_f1": genomes.macro_f1(np.asarray(labels), found),
            "species_accuracy_real": float(np.mean(genomes.predict_species(real_texts, model) == real_labels)),
        }
    # As many of each species on both sides, or the discriminator would tell by the mixture.
    sizes = {name: min(len(group), len(reference[name])) for name, group in generated.items()}
    if sum(sizes.values()) >= 4:
        sides = [
            [text for name, size in sizes.items() for text in side[name][:size]] for side in (reference, generated)
        ]
        metrics["kmer_auroc"] = genomes.kmer_auroc(*sides)
    return metrics


def real(job: Context, name: str) -> tuple[list[str], Int[np.ndarray, "N"] | None]:
    """Sequences of a split with their labels; of a long one the first `LETTERS` letters."""
    split = job.dataset.split(name)
    rows = split.rows(range(min(len(split), max(1, LETTERS // job.dataset.length))))
    return as_texts(job.dataset.tokenizer, rows["tokens"]), rows.get("label")


def grouped(texts: list[str], labels: Int[np.ndarray, "N"] | None, names: tuple[str, ...]) -> dict[str, list[str]]:
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
