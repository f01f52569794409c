"""A user's own sequences: ways of writing them, labels, splits without leaks, omissions, messages."""

import numpy as np
import pytest

from diffusion.data import load_dataset, sequences
from tests.checks import refused
from tests.data.files import fields, ids, labeled, loaded, random_sequence, rows, sizes, texts_of, write

SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(sequences, "BLOCK", 64)


def fasta(path, **changes):
    settings = dict(bos_eos=False, cache_dir=str(path.parent / "cache"), labels="none", field="")
    return fields("fasta", path, **(settings | changes))


def folded(*texts, end="\n", width=60):
    """FASTA text of records r0, r1, ..., each in lines."""
    lines = []
    for number, text in enumerate(texts):
        lines += [f">r{number} of a folder", *(text[at : at + width] for at in range(0, len(text), width)), ""]
    return end.join(lines)


def all_windows(dataset):
    return sorted(tuple(row) for split in dataset.splits for row in rows(dataset, split)["tokens"].tolist())


def test_every_way_of_writing_dna_is_read(tmp_path):
    first, second, third = (random_sequence(length) for length in (1000, 600, 407))
    odd = third[:400] + "RYSWKMBDHVXnNN.-"
    files = {
        "a.fa": folded(first, "ACGT"),
        "deep/er/b.fna.gz": folded(second.lower(), end="\r\n", width=7),
        "deep/c.FASTA": ">only\n" + odd,
        "notes.md": "not data",
        ".hidden.fa": ">x\nACGT\n",
    }
    folder = write(tmp_path / "data", files)
    dataset, said = loaded(fasta(folder))
    read = [text.upper() for text in (first, second, third[:400])]
    expected = [ids(text[at : at + 16]) for text in read for at in range(0, len(text) - 15, 16)]
    assert all_windows(dataset) == sorted(expected)
    assert (dataset.labels, dataset.label_names, dataset.start, dataset.domain) == (0, (), None, "genomes")
    assert "label" not in rows(dataset, "train") and dataset.tokenizer.decode(np.arange(5)) == "ACGTN"
    assert said[:2] == [
        f"data.path: 1 files of other kinds in {str(folder)!r} are left out (notes.md)",
        "data.path: of 2020 letters 601 are lower case and read as upper case, 11 are ambiguity codes and read as "
        "N, 2 are gaps and read as N",
    ]
    assert sorted(line.split(" of the ")[0] for line in said[2:]) == [
        "data.length: 1 sequences",
        "data.path: 1 windows",
    ]


def test_a_place_is_written_in_several_ways_and_content_counts(tmp_path, monkeypatch):
    folder = write(tmp_path / "data", {"a.fa": folded(random_sequence(2000))})
    before = load_dataset(fasta(folder))
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    for path in (f"{folder}/", "data", "./data/", tmp_path / "link", folder / "a.fa"):
        settings = fasta(folder)
        settings.path = str(path)
        assert load_dataset(settings).fingerprint == before.fingerprint
    write(folder, {"a.fa": folded(random_sequence(2000))})
    assert load_dataset(fasta(folder)).fingerprint != before.fingerprint


def test_rna_has_its_letters_and_a_vocabulary_of_its_own(tmp_path):
    text = random_sequence(2000)
    data = {
        name: loaded(fasta(write(tmp_path / name, {"a.fa": folded(each)})))[0]
        for name, each in (("dna", text), ("rna", text.replace("T", "u")))
    }
    assert all_windows(data["dna"]) == all_windows(data["rna"])
    assert {letter for split in SPLITS for each in texts_of(data["rna"], split) for letter in each} == set("ACGU")
    assert data["rna"].tokenizer.fingerprint != data["dna"].tokenizer.fingerprint
    both = write(tmp_path / "both", {"a.fa": folded(text), "b.fa": folded("ACGU" * 10)})
    mixed, said = loaded(fasta(both))
    assert mixed.tokenizer.fingerprint == data["dna"].tokenizer.fingerprint
    assert "data.path: of 2040 letters 10 are U and read as T, since there are both" in said


LABELS = {
    "file": ({"labels": "file"}, ("a", "b")),
    "folder": ({"labels": "folder"}, ("x", "y")),
    "part": ({"labels": "header", "field": "2"}, ("kind-a", "kind-b")),
    "brackets": ({"labels": "header", "field": "organism"}, ("A a", "B b")),
    "equals": ({"labels": "header", "field": "taxon"}, ("7", "9")),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_names_of_files_folders_or_fields(kind, tmp_path):
    changes, names = LABELS[kind]
    texts = [random_sequence(1024, letters) for letters in ("ACG", "CGT")]
    headers = ("r1|kind-a [organism=A a] taxon=7", "r2|kind-b [organism=B b] taxon=9")
    files = [f">{header}\n{text}\n" for header, text in zip(headers, texts, strict=True)]
    folder = write(tmp_path / "data", {"x/a.fa.gz": files[0], "y/b.fna": files[1]})
    dataset = load_dataset(fasta(folder, **changes))
    assert (dataset.labels, dataset.label_names) == (2, names)
    found = sorted(pair for split in SPLITS for pair in labeled(dataset, split))
    expected = [(ids(text[at : at + 16]), label) for label, text in enumerate(texts) for at in range(0, 1024, 16)]
    assert found == sorted(expected)


def test_repeated_records_share_a_split_and_small_sets_have_all_splits(tmp_path):
    texts = [random_sequence(32) for _ in range(20)]
    folder = write(tmp_path / "data", {"a.fa": folded(*texts), "b.fa": folded(*(text.lower() for text in texts[::-1]))})
    dataset, _ = loaded(fasta(folder))
    assert sizes(dataset) == {"train": 72, "validation": 4, "test": 4}
    seen = {split: {text for text in texts_of(dataset, split)} for split in SPLITS}
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["validation"]
    with refused(
        r"data\.path: .* is too small at data\.length=16 \(2 different parts cannot be training, validation and test\)"
    ):
        load_dataset(fasta(write(tmp_path / "few", {"a.fa": folded(*texts[:2])})))


def test_names_of_files_give_splits(tmp_path):
    parts = {split: [random_sequence(32) for _ in range(3)] for split in ("train", "test")}
    folder = write(tmp_path / "data", {f"{split}.fa": folded(*texts) for split, texts in parts.items()})
    dataset = load_dataset(fasta(folder))
    for split, source in (("train", "train"), ("validation", "test"), ("test", "test")):
        expected = [text[at : at + 16] for text in parts[source] for at in (0, 16)]
        assert sorted(texts_of(dataset, split)) == sorted(expected)
    with refused(r"data\.labels: names of files are those of splits"):
        load_dataset(fasta(folder, labels="file"))


def test_records_one_by_one_have_ends_and_padding(tmp_path):
    texts = [random_sequence(length) for length in (*range(1, 15), 14, 15, 40)]
    folder = write(tmp_path / "data", {"a.fa": folded(*texts, "", "NNNA")})
    dataset, said = loaded(fasta(folder, bos_eos=True))
    expected = sorted((5, *ids(text), 6) + (7,) * (14 - len(text)) for text in texts if len(text) <= 14)
    assert all_windows(dataset) == expected and dataset.start == 5
    assert sorted(text for split in SPLITS for text in texts_of(dataset, split)) == sorted(texts[:15])
    left_out = [line for line in said if "left out" in line]
    assert sum(int(line.split()[1]) for line in left_out) == 4
    assert all("have none, or more than 14, nucleotides" in line or "more than half N" in line for line in left_out)


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (">a\nACGT\nMKLV*\n", {}, r"path: line 3 of .*a\.fa: 'L' is not a nucleotide \(is it a protein\?\)"),
        (">a\nACGT*\n", {}, r"path: line 2 of .*a\.fa: '\*' is not a nucleotide"),
        (">a\nAC1GT\n", {}, r"path: line 2 of .*a\.fa: '1' is not a nucleotide; correct"),
        ("", {}, r"path: .*a\.fa is not FASTA: it is empty; remove it"),
        ("ACGT\n", {}, r"path: .*a\.fa is not FASTA: it begins with 'ACGT'"),
        (b">Arabidopsis (M\xfcller)\nACGT\n", {}, r"path: line 1 of .*a\.fa is not UTF-8 text .*; convert the file"),
        (">a\rACGT\r", {}, r"path: line 1 of .*a\.fa has carriage returns within; end lines with newlines"),
        (">a\nACGT\n", {}, r"length: no record of .* gives an example of 16 tokens \(the longest has 4 nuc.*smaller"),
        (">a\nACGT\n", {"labels": "folder"}, r"labels: a\.fa is in no sub-folder of"),
        (">a\nACGT\n", {"labels": "header", "field": "taxon"}, r"field: line 1 of .*a\.fa has no field 'taxon' \('a'"),
        (">a\nACGT\n", {"labels": "header", "field": "2"}, r"field: line 1 of .*a\.fa has no part 2 \('a'\)"),
        (">a\nACGT\n", {"labels": "header"}, r"field: empty; data\.labels=header needs the name or the number"),
        (
            ">a\nACGT\n",
            {"field": "2"},
            r"field: goes with data\.source=text_files or smiles, or",
        ),
        (">a\nACGT\n", {"labels": "species"}, r"labels: unknown 'species'; known: none, file, folder, header"),
    ],
)
def test_damaged_sequences_are_named(content, changes, message, tmp_path):
    folder = write(tmp_path / "data", {"a.fa": content})
    with refused(rf"^data\.{message}"):
        load_dataset(fasta(folder, **changes))


@pytest.mark.parametrize("source", ["fasta", "smiles"])
def test_paths_without_data_are_named(source, tmp_path):
    folder = write(tmp_path / "data", {"a.md": "text"})
    for path, message in (("", "it is empty"), (tmp_path / "no", "does not exist"), (folder, "holds no file of ")):
        with refused(rf"data\.path: .*{message}"):
            load_dataset(fields(source, path, cache_dir=str(tmp_path)))
