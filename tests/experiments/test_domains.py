"""Molecules and genomes in the verb `sample`: files and metrics."""

import itertools
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest

from configs.base import defaults
from configs.recipes.small import tiny
from diffusion.data import load_dataset
from diffusion.metrics.genomes import kmer_distance, predict_species, species_model
from diffusion.metrics.molecules import canonical
from experiments.tasks import sequences, task_of
from experiments.tasks.genomes import grouped
from tests.experiments.conftest import run_of

pytest.importorskip("rdkit")
LETTERS = list("ACGT")
# Shares of A, C, G, T by species.
SHARES = {"at": [0.4, 0.1, 0.1, 0.4], "ce": [0.1, 0.4, 0.4, 0.1], "dm": [0.1, 0.4, 0.1, 0.4]}
NAMES = ("A.thaliana", "C.elegans", "D.melanogaster")


@pytest.fixture(scope="module")
def molecules(tmp_path_factory):
    """Return chains of C, N and O in both directions, so that most molecules have two strings."""
    folder = tmp_path_factory.mktemp("qm9")
    chains = ["".join(chain) for length in (3, 4, 5) for chain in itertools.product("CNO", repeat=length)]
    (folder / "qm9.txt").write_text("\n".join(chains))
    fields = dict(source="qm9", path=str(folder), tokenizer="smiles", length=8, vocab_size=6)
    return load_dataset(SimpleNamespace(**fields))


@pytest.fixture(scope="module")
def genomes(tmp_path_factory):
    """Return records of three species that differ only in the shares of their bases."""
    folder, random = tmp_path_factory.mktemp("splice"), np.random.default_rng(0)
    for code, shares in SHARES.items():
        rows = []
        for gene in range(500):
            letters = "".join(random.choice(LETTERS, size=142, p=shares))
            rows.append(f"{letters[:50]} GT{letters[50:90]}AG {letters[92:]} 1 gene{gene}")
        (folder / f"eie.{code}.txt").write_text("\n".join(rows))
    fields = dict(source="splice_sites", path=str(folder), tokenizer="nucleotides", length=150, vocab_size=8)
    return load_dataset(SimpleNamespace(**fields))


@pytest.fixture
def job(tmp_path):
    def make(dataset, **options):
        config = tiny(defaults("domains", "debug"))
        config.judge.update(dict(name="none", reference="test") | options)
        config.sample.policy = "data"
        return run_of(config, dataset, tmp_path)

    return make


def rows(dataset, texts):
    """Return tokens of texts with EOS and padding; BOS does not change metrics."""
    tokenizer = dataset.tokenizer
    tokens = np.full((len(texts), dataset.length), tokenizer.filler_id, np.int32)
    for row, ids in zip(tokens, tokenizer.encode_batch(texts), strict=True):
        row[: len(ids)] = ids
        row[len(ids)] = tokenizer.eos_id
    return tokens


def metrics_of(run, tokens, labels):
    """Return the metrics of one set of samples."""
    (metrics,) = task_of(run.dataset).measure(run, [(tokens, labels)], {})
    return metrics


def whole(dataset, name):
    """Return all examples of a split."""
    return dataset.split(name).rows(range(len(dataset.split(name))))


def test_molecules_are_counted_written_and_drawn(job, molecules):
    run = job(molecules)
    sequences.check_reference(run)
    known = {molecules.tokenizer.decode(row) for row in whole(molecules, "train")["tokens"]}
    # A molecule with one string in the training split and the other held out.
    string = next(text for text in sorted(known) if text[::-1] not in known)
    tokens = rows(molecules, [string, string[::-1], "C" * 7, "N" * 6, "C" * 7, ""])
    tokens[3, 2] = molecules.tokenizer.mask_id
    metrics = metrics_of(run, tokens, None)
    counts = {name: metrics[name] for name in ("samples", "valid", "unique", "novel")}
    assert counts == {"samples": 6, "valid": 4, "unique": 2, "novel": 1}
    # Both strings differ, and the held-out one is novel unless it is canonical.
    assert metrics["unique_strings"] == 3 and metrics["novel_strings"] in (1, 2)
    assert metrics["valid_rate"] == pytest.approx(4 / 6) and metrics["rings"] == 0 and 0 < metrics["qed"] < 1
    lines = (run.folder / "samples.txt").read_text().split("\n")
    assert lines == [string, string[::-1], "C" * 7, "NN▢NNN", "C" * 7, "", ""]
    assert matplotlib.image.imread(run.folder / "samples.png").shape[1] == 1200
    assert len(list((run.workdir / "cache" / "molecules").iterdir())) == 1
    assert metrics_of(run, tokens, None) == metrics, "also from the cache"
    # Strings of the training split that are not canonical are not novel.
    others = [text for text in sorted(known) if canonical([text]) != [text] and canonical([text])[0] not in known]
    assert others and metrics_of(run, rows(molecules, others), None)["novel_strings"] == 0
    none = metrics_of(run, rows(molecules, ["", ""]), None)
    assert none["valid"] == none["novel"] == 0 and "qed" not in none


def test_special_tokens_are_omitted_at_all_positions(molecules, genomes):
    tokens = rows(molecules, ["CO", "N"])
    tokens[0, :6] = [molecules.tokenizer.bos_id, *tokens[0, :3], molecules.tokenizer.filler_id, tokens[1, 0]]
    assert sequences.as_texts(molecules.tokenizer, tokens) == ["CON", "N"]
    tokens = genomes.split("test").rows(range(20))["tokens"]
    assert sequences.as_texts(genomes.tokenizer, tokens) == [genomes.tokenizer.decode(row) for row in tokens]


def test_held_out_molecules_replace_samples(job, molecules):
    for reference, split in (("test", "validation"), ("validation", "test")):
        tokens, labels = sequences.held_out(job(molecules, reference=reference), 10)
        assert labels is None
        np.testing.assert_array_equal(tokens, molecules.split(split).rows(range(10))["tokens"])
    metrics = metrics_of(job(molecules), tokens, labels)
    assert metrics["valid_rate"] == 1 and metrics["novel_strings"] <= 10


def test_genomes_are_compared_by_species(job, genomes):
    run = job(genomes)
    sequences.check_reference(run)
    tokens, labels = sequences.held_out(run, 1000)
    metrics = metrics_of(run, tokens, labels)
    assert metrics["samples"] == len(tokens) == len(genomes.split("validation")) and set(labels) == {0, 1, 2}
    assert metrics["splice_rule"] == metrics["splice_rule/C.elegans"] == metrics["donor"] == metrics["acceptor"] == 1
    assert metrics["species_accuracy"] > 0.95 and metrics["species_f1"] > 0.95
    assert metrics["species_accuracy_real"] > 0.95
    assert 0.25 < metrics["kmer_auroc"] < 0.75
    texts, test = sequences.as_texts(genomes.tokenizer, tokens), whole(genomes, "test")
    reference = [genomes.tokenizer.decode(row) for row in test["tokens"][test["label"] == 1]]
    generated = [text for text, label in zip(texts, labels, strict=True) if label == 1]
    assert metrics["kmer3_distance/C.elegans"] == pytest.approx(kmer_distance(generated, reference, 3))
    each = [metrics[f"kmer6_distance/{name}"] for name in NAMES]
    assert metrics["kmer6_distance"] == pytest.approx(np.average(each, weights=np.bincount(test["label"])))
    lines = (run.folder / "samples.txt").read_text().splitlines()
    assert lines == [f"{NAMES[label]}\t{text}" for label, text in zip(labels, texts, strict=True)]


def test_species_are_learned_from_the_training_split(job, genomes):
    """Short sequences have classification errors, which depend on the training split."""
    tokens, labels = sequences.held_out(job(genomes), 1000)
    short = [text[:7] for text in sequences.as_texts(genomes.tokenizer, tokens)]
    metrics, train = metrics_of(job(genomes), rows(genomes, short), labels), whole(genomes, "train")
    texts = sequences.as_texts(genomes.tokenizer, train["tokens"])
    expected = np.mean(predict_species(short, species_model(grouped(texts, train["label"], NAMES))) == labels)
    assert metrics["species_accuracy"] == expected and 0.4 < expected < 0.98


def test_wrong_or_absent_species_change_metrics(job, genomes):
    run = job(genomes)
    tokens, labels = sequences.held_out(run, 1000)
    right, wrong, absent = (metrics_of(run, tokens, species) for species in (labels, (labels + 1) % 3, None))
    assert wrong["species_accuracy"] < 0.05 < 0.95 < right["species_accuracy"]
    assert wrong["kmer3_distance"] > 3 * right["kmer3_distance"]
    assert wrong["kmer_auroc"] < 0.75, "the discriminator has no labels, and the mixture is the same"
    assert wrong["species_accuracy_real"] == right["species_accuracy_real"]
    with pytest.raises(ValueError, match="10 samples cannot have 9 labels"):
        metrics_of(run, tokens[:10], labels[:9])
    # Sequences without labels are one group.
    texts, reference = (
        sequences.as_texts(genomes.tokenizer, each) for each in (tokens, whole(genomes, "test")["tokens"])
    )
    assert absent["kmer3_distance"] == pytest.approx(kmer_distance(texts, reference, 3))
    assert not [name for name in absent if "species" in name or "/" in name]
    assert (run.folder / "samples.txt").read_text().splitlines() == texts


def test_metrics_of_invalid_sequences(job, genomes):
    metrics = metrics_of(job(genomes), rows(genomes, ["", "ACGT", "GT"]), np.array([0, 1, 1]))
    assert metrics["kmer6_distance/A.thaliana"] == pytest.approx(np.sqrt(np.log(2)))
    assert metrics["splice_rule"] == 0 and "kmer_auroc" not in metrics, "3 sequences are too few for a discriminator"
