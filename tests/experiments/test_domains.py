"""Molecules and genomes in the verb `sample`: what is written, and what is compared with what."""

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
from experiments.tasks import genomes as genomes_task
from experiments.tasks import sequences, task_of
from tests.experiments.conftest import run_of

pytest.importorskip("rdkit")
LETTERS = list("ACGT")
# Shares of A, C, G, T by species.
SHARES = {"at": [0.4, 0.1, 0.1, 0.4], "ce": [0.1, 0.4, 0.4, 0.1], "dm": [0.1, 0.4, 0.1, 0.4]}
NAMES = ("A.thaliana", "C.elegans", "D.melanogaster")


@pytest.fixture(scope="module")
def molecules(tmp_path_factory):
    """Chains of C, N and O in both directions, so that most molecules have two spellings."""
    folder = tmp_path_factory.mktemp("qm9")
    chains = ["".join(chain) for length in (3, 4, 5) for chain in itertools.product("CNO", repeat=length)]
    (folder / "qm9.txt").write_text("\n".join(chains))
    fields = dict(source="qm9", path=str(folder), tokenizer="smiles", length=8, vocab_size=6)
    return load_dataset(SimpleNamespace(**fields))


@pytest.fixture(scope="module")
def genomes(tmp_path_factory):
    """Records of three species that differ in their letters alone."""
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
    """Tokens of texts, EOS and filling behind them (BOS before them changes no measure)."""
    tokenizer = dataset.tokenizer
    tokens = np.full((len(texts), dataset.length), tokenizer.filler_id, np.int32)
    for row, ids in zip(tokens, tokenizer.encode_batch(texts), strict=True):
        row[: len(ids)] = ids
        row[len(ids)] = tokenizer.eos_id
    return tokens


def measured(made, tokens, labels):
    """The measures of one set of samples."""
    (metrics,) = task_of(made.dataset).measure(made, [(tokens, labels)], {})
    return metrics


def whole(dataset, name):
    """All examples of a split."""
    return dataset.split(name).rows(range(len(dataset.split(name))))


def test_molecules_are_counted_written_and_drawn(job, molecules):
    made = job(molecules)
    sequences.check_reference(made)
    known = {molecules.tokenizer.decode(row) for row in whole(molecules, "train")["tokens"]}
    # A molecule of which one spelling trains the model, and the other is held out.
    spelling = next(text for text in sorted(known) if text[::-1] not in known)
    tokens = rows(molecules, [spelling, spelling[::-1], "C" * 7, "N" * 6, "C" * 7, ""])
    tokens[3, 2] = molecules.tokenizer.mask_id
    metrics = measured(made, tokens, None)
    counts = {name: metrics[name] for name in ("samples", "valid", "unique", "novel")}
    assert counts == {"samples": 6, "valid": 4, "unique": 2, "novel": 1}
    # As strings both spellings are different, and the untrained one is new unless it is the canonical one.
    assert metrics["unique_strings"] == 3 and metrics["novel_strings"] in (1, 2)
    assert metrics["valid_rate"] == pytest.approx(4 / 6) and metrics["rings"] == 0 and 0 < metrics["qed"] < 1
    lines = (made.folder / "samples.txt").read_text().split("\n")
    assert lines == [spelling, spelling[::-1], "C" * 7, "NN▢NNN", "C" * 7, "", ""]
    assert matplotlib.image.imread(made.folder / "samples.png").shape[1] == 1200
    assert len(list((made.workdir / "cache" / "molecules").iterdir())) == 1
    assert measured(made, tokens, None) == metrics, "also from the cache"
    # What the training split spells in its own way is not new as a string either.
    odd = [text for text in sorted(known) if canonical([text]) != [text] and canonical([text])[0] not in known]
    assert odd and measured(made, rows(molecules, odd), None)["novel_strings"] == 0


def test_special_tokens_are_left_out_wherever_they_stand(molecules, genomes):
    tokens = rows(molecules, ["CO", "N"])
    tokens[0, :6] = [molecules.tokenizer.bos_id, *tokens[0, :3], molecules.tokenizer.filler_id, tokens[1, 0]]
    assert sequences.as_texts(molecules.tokenizer, tokens) == ["CON", "N"]
    real = genomes.split("test").rows(range(20))["tokens"]
    assert sequences.as_texts(genomes.tokenizer, real) == [genomes.tokenizer.decode(row) for row in real]


def test_no_valid_molecule_is_a_result(job, molecules):
    made = job(molecules)
    metrics = measured(made, rows(molecules, ["", ""]), None)
    assert metrics["valid"] == metrics["novel"] == 0 and "qed" not in metrics
    assert (made.folder / "samples.png").exists()


def test_held_out_molecules_stand_in_for_samples(job, molecules):
    made = job(molecules)
    tokens, labels = sequences.held_out(made, 10)
    assert labels is None and len(tokens) == 10
    np.testing.assert_array_equal(tokens, molecules.split("validation").rows(range(10))["tokens"])
    metrics = measured(made, tokens, labels)
    assert metrics["valid_rate"] == 1 and metrics["novel_strings"] <= 10
    other = job(molecules, reference="validation")
    np.testing.assert_array_equal(sequences.held_out(other, 5)[0], molecules.split("test").rows(range(5))["tokens"])


def test_genomes_are_compared_species_by_species(job, genomes):
    made = job(genomes)
    sequences.check_reference(made)
    tokens, labels = sequences.held_out(made, 1000)
    metrics = measured(made, tokens, labels)
    assert metrics["samples"] == len(tokens) == len(genomes.split("validation")) and set(labels) == {0, 1, 2}
    assert metrics["splice_rule"] == metrics["splice_rule/C.elegans"] == metrics["donor"] == metrics["acceptor"] == 1
    assert metrics["species_accuracy"] > 0.95 and metrics["species_f1"] > 0.95
    assert metrics["species_accuracy_real"] > 0.95
    assert 0.25 < metrics["kmer_auroc"] < 0.75
    texts, test = sequences.as_texts(genomes.tokenizer, tokens), whole(genomes, "test")
    reference = [genomes.tokenizer.decode(row) for row in test["tokens"][test["label"] == 1]]
    mine = [text for text, label in zip(texts, labels, strict=True) if label == 1]
    assert metrics["kmer3_distance/C.elegans"] == pytest.approx(kmer_distance(mine, reference, 3))
    each = [metrics[f"kmer6_distance/{name}"] for name in NAMES]
    assert metrics["kmer6_distance"] == pytest.approx(np.average(each, weights=np.bincount(test["label"])))
    lines = (made.folder / "samples.txt").read_text().splitlines()
    assert lines == [f"{NAMES[label]}\t{text}" for label, text in zip(labels, texts, strict=True)]


def test_species_are_learned_from_the_training_split(job, genomes):
    """On sequences of two words, where the species is often mistaken."""
    tokens, labels = sequences.held_out(job(genomes), 1000)
    short = [text[:7] for text in sequences.as_texts(genomes.tokenizer, tokens)]
    metrics = measured(job(genomes), rows(genomes, short), labels)
    train = whole(genomes, "train")
    texts = sequences.as_texts(genomes.tokenizer, train["tokens"])
    model = species_model(genomes_task.grouped(texts, train["label"], NAMES))
    expected = np.mean(predict_species(short, model) == labels)
    assert metrics["species_accuracy"] == expected and 0.4 < expected < 0.98


def test_another_species_than_asked_for_is_noticed(job, genomes):
    made = job(genomes)
    tokens, labels = sequences.held_out(made, 1000)
    right, wrong = (measured(made, tokens, asked) for asked in (labels, (labels + 1) % 3))
    assert wrong["species_accuracy"] < 0.05 < 0.95 < right["species_accuracy"]
    assert wrong["kmer3_distance"] > 3 * right["kmer3_distance"]
    assert wrong["kmer_auroc"] < 0.75, "the discriminator is not told the species, and the mixture is the same"
    assert wrong["species_accuracy_real"] == right["species_accuracy_real"]
    with pytest.raises(ValueError, match="10 samples cannot have 9 labels"):
        measured(made, tokens[:10], labels[:9])


def test_without_labels_all_sequences_are_one_set(job, genomes):
    made = job(genomes)
    tokens, _ = sequences.held_out(made, 40)
    metrics = measured(made, tokens, None)
    texts = sequences.as_texts(genomes.tokenizer, tokens)
    reference = [genomes.tokenizer.decode(row) for row in whole(genomes, "test")["tokens"]]
    expected = kmer_distance(texts, reference, 3)
    assert metrics["kmer3_distance"] == pytest.approx(expected)
    assert not [name for name in metrics if "species" in name or "/" in name]
    assert (made.folder / "samples.txt").read_text().splitlines() == texts


def test_broken_sequences_are_a_result(job, genomes):
    made = job(genomes)
    metrics = measured(made, rows(genomes, ["", "ACGT", "GT"]), np.array([0, 1, 1]))
    assert metrics["kmer6_distance/A.thaliana"] == pytest.approx(np.sqrt(np.log(2)))
    assert metrics["splice_rule"] == 0 and "kmer_auroc" not in metrics, "3 sequences train no discriminator"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(name="gpt2"), r"judge\.name: 'gpt2' cannot judge genomes"),
        (dict(reference="dev"), r"splice_sites has no 'dev' examples"),
    ],
)
def test_what_cannot_be_measured_is_named(options, message, job, genomes):
    with pytest.raises(ValueError, match=message) as caught:
        genomes_task.check(job(genomes, **options))
    assert "\n" not in str(caught.value)
