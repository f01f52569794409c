"""Windows of genomes: exact tokens, labels and splits, omissions, and messages."""

import gzip
import lzma
import warnings

import numpy as np
import pytest

from diffusion.data import load_dataset, sequences
from diffusion.data.arrays import label_count
from diffusion.data.genomes import TEN_SPECIES
from tests.genome_files import (
    check_refusals,
    fields,
    ids,
    labeled,
    random_sequence,
    real_data,
    rows,
    split_of,
)

SMALL = {
    "A.thaliana.fa.gz": gzip.compress,
    "C.elegans.fa": bytes,
    "D.melanogaster.fasta.xz": lzma.compress,
    "GCF_000005845.2_ASM584v2_genomic.fna.gz": gzip.compress,
}


def folded(sequences_):
    """FASTA text with lines of 70 letters, as genomes are distributed."""
    lines = []
    for name, text in sequences_.items():
        lines += [f">{name} some description", *(text[at : at + 70] for at in range(0, len(text), 70)), ""]
    return "\n".join(lines)


def windows_of(text, length, name, block):
    """(split, window) of all windows of which at most half is N, read as A, C, G, T and N."""
    text = "".join(letter if letter in "ACGT" else "N" for letter in text.upper())
    for start in range(0, len(text) - length + 1, length):
        window = text[start : start + length]
        if window.count("N") * 2 <= length:
            yield split_of(f"{name}/{start // block}"), ids(window)


@pytest.fixture(scope="module")
def genomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("genomes")
    content = []
    for name, pack in SMALL.items():
        content.append(
            {
                "X": random_sequence(4000, "ACGTACGTacgtRN"),
                "II": random_sequence(2, "A") + "N" * 60 + random_sequence(1003),
            }
        )
        (folder / name).write_bytes(pack(folded(content[-1]).encode()))
    return folder, content


def test_windows_are_adjacent_and_those_of_a_block_share_a_split(genomes, monkeypatch):
    folder, content = genomes
    monkeypatch.setattr(sequences, "BLOCK", 64)
    with pytest.warns(UserWarning, match=r"more than half N") as caught:
        dataset = load_dataset(fields("genomes_small", folder, length=16))
    expected = {"train": [], "validation": [], "test": []}
    total = 0
    for species, sequences_ in enumerate(content):
        for name, text in sequences_.items():
            total += len(text) // 16
            for split, window in windows_of(text, 16, f"{species}/{name}", 64):
                expected[split].append((window, species))
    for split in expected:
        assert labeled(dataset, split) == sorted(expected[split])
        assert len({label for _, label in expected[split]}) > 1
        assert dataset.statistics[split].characters == dataset.statistics[split].tokens == 16 * len(expected[split])
    left_out = sum(int(str(warning.message).split()[1]) for warning in caught if "half N" in str(warning.message))
    assert left_out == total - sum(map(len, expected.values())) >= 12
    assert dataset.label_names == ("A.thaliana", "C.elegans", "D.melanogaster", "E.coli")
    assert dataset.start is None
    assert dataset.labels == label_count("genomes_small") == 4 and dataset.domain == "genomes"
    assert set(rows(dataset, "train")["label"][:40]) == {0, 1, 2, 3}


def test_windows_of_another_length_are_in_the_same_split(genomes, monkeypatch):
    folder, _ = genomes
    monkeypatch.setattr(sequences, "BLOCK", 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        short, long = (load_dataset(fields("genomes_small", folder, length=length)) for length in (16, 32))
    halves = {row[half : half + 16] for row, _ in labeled(long, "test") for half in (0, 16)}
    assert halves and halves & {row for row, _ in labeled(short, "test")}
    assert not halves & {row for row, _ in labeled(short, "train")}
    assert short.fingerprint != long.fingerprint


def write_ten(folder, name="{}.GRCh38.dna.fa.gz"):
    content = []
    for species in TEN_SPECIES:
        content.append({"1": random_sequence(1000), "2": random_sequence(650)})
        (folder / name.format(species)).write_bytes(gzip.compress(folded(content[-1]).encode()))
    return content


def test_ten_genomes_are_packed_once_with_their_labels(tmp_path, monkeypatch):
    folder = tmp_path / "fasta"
    folder.mkdir()
    content = write_ten(folder)
    monkeypatch.setattr(sequences, "BLOCK", 64)
    expected = {"train": [], "validation": [], "test": []}
    for species, sequences_ in enumerate(content):
        for name, text in sequences_.items():
            for split, window in windows_of(text, 32, f"{species}/{name}", 64):
                expected[split].append((window, species))
    settings = fields("ten_species", folder, length=32, cache_dir=str(tmp_path / "cache"))
    order = None
    for memory in (2**28, 0):
        monkeypatch.setattr("diffusion.data.dataset.MEMORY_LIMIT", memory)
        dataset = load_dataset(settings)
        for split in expected:
            assert labeled(dataset, split) == sorted(expected[split]) != []
            assert dataset.statistics[split].characters == 32 * len(expected[split])
        batch = rows(dataset, "train")
        # In TFDS's order, which is fixed and independent of that of the files.
        assert len(set(batch["label"][:40])) > 5
        order = batch["tokens"] if order is None else order
        np.testing.assert_array_equal(batch["tokens"], order)
    assert dataset.split("train").source[0]["tokens"].dtype == np.uint8
    assert dataset.labels == label_count("ten_species") == 10 and dataset.label_names == TEN_SPECIES
    assert len(list((tmp_path / "cache" / "packed").iterdir())) == 1
    load_dataset(fields("ten_species", folder, length=16, cache_dir=str(tmp_path / "cache")))
    assert len(list((tmp_path / "cache" / "packed").iterdir())) == 2
    (folder / "Felis_catus.GRCh38.dna.fa.gz").unlink()
    with pytest.raises(ValueError, match=r"data\.path: ten_species expects Parquet files, or FASTA files of Homo_sap"):
        load_dataset(settings)


def parquet(file, sequences_, labels, column="species_label"):
    import pyarrow
    import pyarrow.parquet

    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table({"sequence": sequences_, column: labels}), file)


def test_tables_of_sequences_keep_the_splits_of_their_files(tmp_path):
    content = {split: [random_sequence(32) for _ in range(20)] for split in ("train", "test", "dev")}
    parquet(tmp_path / "a/data/train-00000-of-00001.parquet", content["train"], [number % 10 for number in range(20)])
    names = [TEN_SPECIES[number % 10].replace("_", " ") for number in range(20)]
    parquet(tmp_path / "a/data/test-00000-of-00001.parquet", content["test"], names, column="species")
    settings = fields("ten_species", tmp_path / "a", length=16, cache_dir=str(tmp_path / "cache"))

    def expected(split):
        pairs = [(text, number % 10) for number, text in enumerate(content[split])]
        return sorted((ids(text[at : at + 16]), label) for text, label in pairs for at in (0, 16))

    two = load_dataset(settings)
    assert labeled(two, "train") == expected("train")
    assert labeled(two, "test") == labeled(two, "validation") == expected("test")
    parquet(tmp_path / "a/dev/0000.parquet", content["dev"], [number % 10 for number in range(20)])
    three = load_dataset(settings)
    assert labeled(three, "validation") == expected("dev") and labeled(three, "test") == expected("test")
    assert three.fingerprint != two.fingerprint
    (tmp_path / "a/data/train-00000-of-00001.parquet").rename(tmp_path / "a/data/more.parquet")
    with pytest.raises(ValueError, match=r"data\.path: data/more\.parquet does not name its split"):
        load_dataset(settings)
    (tmp_path / "a/data/more.parquet").unlink()
    with pytest.raises(ValueError, match=r"data\.path: no file names the train split"):
        load_dataset(settings)


def test_a_table_of_one_split_is_split_by_blocks_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(sequences, "ROWS_PER_BLOCK", 2)
    content = [random_sequence(20) for _ in range(400)]
    parquet(tmp_path / "default/train/0000.parquet", content, [3] * 400)
    dataset = load_dataset(fields("ten_species", tmp_path, cache_dir=str(tmp_path / "cache")))
    for split in ("train", "validation", "test"):
        mine = [
            ids(text[:16])
            for row, text in enumerate(content)
            if split_of(f"default/train/0000.parquet/{row // 2}/0") == split
        ]
        assert labeled(dataset, split) == sorted((window, 3) for window in mine) != []


def test_sequences_shorter_than_a_window_are_counted(tmp_path):
    content = {split: [random_sequence(8 + number) for number in range(40)] for split in ("train", "test")}
    for split, texts in content.items():
        parquet(tmp_path / f"{split}.parquet", texts, [3] * len(texts))
    settings = fields("ten_species", tmp_path, cache_dir=str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match=r"^data\.length: ") as caught:
        dataset = load_dataset(settings)
    said = {str(warning.message) for warning in caught if "nucleotides" in str(warning.message)}
    assert said == {
        f"data.length: 8 sequences of the {split} split of ten_species have fewer than 16 nucleotides and are left out"
        for split in ("train", "test")
    }
    assert len(dataset.split("train")) == sum((8 + number) // 16 for number in range(40))


def test_damaged_tables_are_named(tmp_path):
    settings = fields("ten_species", tmp_path, cache_dir=str(tmp_path / "cache"))
    for content, message in (
        ((["ACGT" * 4], [10]), "row 0 of .* names the unknown species 10"),
        ((["ACGT" * 4], ["Homo erectus"]), "names the unknown species 'Homo erectus'"),
        (([None, "ACGT" * 4], [1, 1]), "row 0 of .* has no text field; expected sequence or seq"),
        ((["hello world"], [1]), "is not a file of nucleotides .*'e' is not a nucleotide"),
        ((["ACGT"], [1], "kind"), "row 0 of .* names the unknown species None"),
    ):
        parquet(tmp_path / "a.parquet", *content)
        with pytest.raises(ValueError, match=rf"data\.path: .*{message}") as caught:
            load_dataset(settings)
        assert "\n" not in str(caught.value)


def test_damaged_genomes_are_named(genomes, tmp_path):
    for file in genomes[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for name, content, message in (
        ("C.elegans.fa", b"ACGT\n", r"C\.elegans\.fa is not FASTA: it begins with 'ACGT', not with '>'"),
        ("C.elegans.fa", b"\n", "is not FASTA: it is empty"),
        ("C.elegans.fa", b">p\nMEEPQSDPSV\n", "is not a file of nucleotides .*'E' is not a nucleotide"),
        ("C.elegans.fa", b"\xff\xfe\x00", "is not UTF-8 text"),
        ("A.thaliana.fa.gz", gzip.compress(b">1\nACGT")[:-9], "a compressed file in .* is damaged"),
        ("D.melanogaster.fasta.xz", lzma.compress(b">1\nACGT")[:-9], "a compressed file in .* is damaged"),
        ("GCF_000005845.2_ASM584v2_genomic.fna.gz", None, r"genomes_small expects FASTA files A\.thaliana, "),
    ):
        original = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ValueError, match=rf"data\.path: .*{message}") as caught:
                load_dataset(fields("genomes_small", tmp_path))
        assert "\n" not in str(caught.value)
        (tmp_path / name).write_bytes(original)


@pytest.mark.parametrize("source", ["genomes_small", "ten_species"])
def test_missing_files_and_fields_that_do_not_fit_are_named(source, genomes, tmp_path):
    if source == "ten_species":
        write_ten(tmp_path)
    place = {"genomes_small": genomes[0], "ten_species": tmp_path}[source]
    check_refusals(source, place)
    with (
        pytest.warns(UserWarning, match="are left out"),
        pytest.raises(ValueError, match=r"data\.length: the train split"),
    ):
        load_dataset(fields(source, place, length=100_000, cache_dir=str(tmp_path / "cache")))


@pytest.mark.filterwarnings("ignore:data.path")
def test_the_real_genomes_have_their_known_sizes():
    dataset = load_dataset(fields("genomes_small", real_data("genomes_small"), length=256))
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    assert sizes == {"train": 29_175, "validation": 1_235, "test": 1_603}
    counts = sum(np.bincount(rows(dataset, split)["label"], minlength=4) for split in sizes)
    assert counts[3] == 4_641_652 // 256
    assert all(set(rows(dataset, split)["label"]) == {0, 1, 2, 3} for split in sizes)
