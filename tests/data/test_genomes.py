"""Windows of genomes: exact tokens, labels and splits, omissions, and messages."""

import numpy as np
import pytest

from diffusion.data import load_dataset, sequences
from diffusion.data.arrays import label_count
from diffusion.data.genomes import TEN_SPECIES
from tests.checks import refused
from tests.data.files import (
    fields,
    ids,
    labeled,
    random_sequence,
    rows,
    split_of,
    write,
    write_table,
)

SPLITS = ("train", "validation", "test")
SMALL = ("A.thaliana.fa.gz", "C.elegans.fa", "D.melanogaster.fasta.xz", "GCF_000005845.2_ASM584v2_genomic.fna.gz")


def folded(texts):
    """FASTA text with lines of 70 letters, as genomes are distributed."""
    lines = []
    for name, text in texts.items():
        lines += [f">{name} some description", *(text[at : at + 70] for at in range(0, len(text), 70)), ""]
    return "\n".join(lines)


def windows(content, length, block=64):
    """Sorted (window, species) of each split, of all windows of which at most half is N, as A, C, G, T and N."""
    result = {split: [] for split in SPLITS}
    for species, texts in enumerate(content):
        for name, text in texts.items():
            text = "".join(letter if letter in "ACGT" else "N" for letter in text.upper())
            for start in range(0, len(text) - length + 1, length):
                window = text[start : start + length]
                if window.count("N") * 2 <= length:
                    result[split_of(f"{species}/{name}/{start // block}")].append((ids(window), species))
    return {split: sorted(pairs) for split, pairs in result.items()}


@pytest.fixture(scope="module")
def genomes(tmp_path_factory):
    content = [
        {"X": random_sequence(4000, "ACGTACGTacgtRN"), "II": "AC" + "N" * 60 + random_sequence(1003)} for _ in SMALL
    ]
    files = dict(zip(SMALL, map(folded, content), strict=True))
    return write(tmp_path_factory.mktemp("genomes"), files), content


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(sequences, "BLOCK", 64)


def test_windows_are_adjacent_and_those_of_a_block_share_a_split(genomes):
    folder, content = genomes
    with pytest.warns(UserWarning, match=r"more than half N") as caught:
        dataset = load_dataset(fields("genomes_small", folder))
    expected = windows(content, 16)
    for split, pairs in expected.items():
        assert labeled(dataset, split) == pairs
        assert len({label for _, label in pairs}) > 1
        assert dataset.statistics[split].characters == dataset.statistics[split].tokens == 16 * len(pairs)
    left_out = sum(int(str(warning.message).split()[1]) for warning in caught if "half N" in str(warning.message))
    total = sum(len(text) // 16 for texts in content for text in texts.values())
    assert left_out == total - sum(map(len, expected.values())) >= 12
    assert dataset.label_names == ("A.thaliana", "C.elegans", "D.melanogaster", "E.coli")
    assert dataset.labels == label_count(fields("genomes_small")) == 4 and dataset.domain == "genomes"
    assert dataset.start is None
    # Windows of another length are in the same split.
    with pytest.warns(UserWarning):
        long = load_dataset(fields("genomes_small", folder, length=32))
    halves = {row[half : half + 16] for row, _ in labeled(long, "test") for half in (0, 16)}
    assert halves and not halves & {row for row, _ in labeled(dataset, "train")}
    assert set(rows(dataset, "train")["label"][:40]) == {0, 1, 2, 3}


def test_ten_genomes_are_packed_once_with_their_labels(tmp_path, monkeypatch):
    content = [{"1": random_sequence(1000), "2": random_sequence(650)} for _ in TEN_SPECIES]
    names = [f"{species}.GRCh38.dna.fa.gz" for species in TEN_SPECIES]
    folder = write(tmp_path / "fasta", dict(zip(names, map(folded, content), strict=True)))
    expected = windows(content, 32)
    settings = fields("ten_species", folder, length=32, cache_dir=str(tmp_path / "cache"))
    orders = []
    for memory in (2**28, 0):
        monkeypatch.setattr("diffusion.data.dataset.MEMORY_LIMIT", memory)
        dataset = load_dataset(settings)
        for split, pairs in expected.items():
            assert labeled(dataset, split) == pairs != []
            assert dataset.statistics[split].characters == 32 * len(pairs)
        batch = rows(dataset, "train")
        # In TFDS's order, which is fixed and independent of that of the files.
        assert len(set(batch["label"][:40])) > 5
        orders.append(batch["tokens"])
    np.testing.assert_array_equal(*orders)
    assert dataset.split("train").source[0]["tokens"].dtype == np.uint8
    assert dataset.labels == label_count(fields("ten_species")) == 10 and dataset.label_names == TEN_SPECIES
    assert len(list((tmp_path / "cache" / "packed").iterdir())) == 1
    (folder / "Felis_catus.GRCh38.dna.fa.gz").unlink()
    with refused(r"data\.path: ten_species expects Parquet files, or FASTA files of Homo_sap"):
        load_dataset(settings)


def table(texts, labels, column="species_label"):
    return [{"sequence": text, column: label} for text, label in zip(texts, labels, strict=True)]


def test_tables_of_sequences_keep_the_splits_of_their_files(tmp_path):
    content = {split: [random_sequence(32) for _ in range(20)] for split in ("train", "test", "dev")}
    labels = [number % 10 for number in range(20)]
    names = [TEN_SPECIES[label].replace("_", " ") for label in labels]
    train = tmp_path / "a/data/train-00000-of-00001.parquet"
    write_table(train, table(content["train"], labels))
    write_table(tmp_path / "a/data/test-00000-of-00001.parquet", table(content["test"], names, "species"))
    settings = fields("ten_species", tmp_path / "a", cache_dir=str(tmp_path / "cache"))

    def expected(split):
        pairs = zip(content[split], labels, strict=True)
        return sorted((ids(text[at : at + 16]), label) for text, label in pairs for at in (0, 16))

    two = load_dataset(settings)
    assert labeled(two, "train") == expected("train")
    assert labeled(two, "test") == labeled(two, "validation") == expected("test")
    write_table(tmp_path / "a/dev/0000.parquet", table(content["dev"], labels))
    three = load_dataset(settings)
    assert labeled(three, "validation") == expected("dev") and labeled(three, "test") == expected("test")
    more = train.rename(tmp_path / "a/data/more.parquet")
    with refused(r"data\.path: data/more\.parquet does not name its split"):
        load_dataset(settings)
    more.unlink()
    with refused(r"data\.path: no file names the train split"):
        load_dataset(settings)


def test_a_table_of_one_split_is_split_by_blocks_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(sequences, "ROWS_PER_BLOCK", 2)
    content = [random_sequence(20) for _ in range(400)]
    write_table(tmp_path / "default/train/0000.parquet", table(content, [3] * 400))
    dataset = load_dataset(fields("ten_species", tmp_path, cache_dir=str(tmp_path / "cache")))
    expected = {split: [] for split in SPLITS}
    for row, text in enumerate(content):
        expected[split_of(f"default/train/0000.parquet/{row // 2}/0")].append((ids(text[:16]), 3))
    for split, pairs in expected.items():
        assert labeled(dataset, split) == sorted(pairs) != []


def test_sequences_shorter_than_a_window_are_counted(tmp_path):
    for split in ("train", "test"):
        write_table(tmp_path / f"{split}.parquet", table([random_sequence(8 + n) for n in range(40)], [3] * 40))
    with pytest.warns(UserWarning, match=r"^data\.length: ") as caught:
        dataset = load_dataset(fields("ten_species", tmp_path, cache_dir=str(tmp_path / "cache")))
    assert {str(warning.message) for warning in caught if "nucleotides" in str(warning.message)} == {
        f"data.length: 8 sequences of the {split} split of ten_species have fewer than 16 nucleotides and are left out"
        for split in ("train", "test")
    }
    assert len(dataset.split("train")) == sum((8 + number) // 16 for number in range(40))
