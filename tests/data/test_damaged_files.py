"""Damaged files of every source are named in one line, with the place of the damage."""

import gzip
import json
import lzma
import os
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from diffusion.data import load_dataset, readers, subword, tables
from diffusion.data.genomes import SMALL_SPECIES
from experiments.contents import content_hash
from tests.checks import refused
from tests.data.files import SIZES, fields, idx, write, write_table

# Files without damage, of which a case replaces one.
SITES = {f"eie.{code}.txt": "ACG GTAG ACG 3 gene\n" for code in ("at", "ce", "dm")}
GENOMES = {f"{species}.fa": ">1\nACGT" for species in SMALL_SPECIES}
MNIST = {f"{part}-images-idx3-ubyte": idx(np.zeros((3, 28, 28))) for part in ("train", "t10k")}
MNIST |= {f"{part}-labels-idx1-ubyte": idx(np.zeros(3)) for part in ("train", "t10k")}
PAIR = {"intent": "a", "snippet": "b", "question_id": 1}
CONALA = {"conala-train.json": json.dumps([PAIR]), "conala-test.json": json.dumps([PAIR | {"question_id": 2}])}

CASES = [
    ("splice_sites", {"eie.dm.txt": "A G T 3 g\nA G T g\n"}, r"line 2 of .*eie\.dm\.txt has 4 fields"),
    ("splice_sites", {"eie.dm.txt": "A 12 T 3 gene\n"}, r"eie\.dm\.txt: '1' is not a nucleotide; correct"),
    ("genomes_small", {"C.elegans.fa": "ACGT\n"}, r"C\.elegans\.fa is not FASTA: it begins with 'ACGT', not with '>'"),
    ("genomes_small", {"C.elegans.fa": "\n"}, "is not FASTA: it is empty"),
    ("genomes_small", {"C.elegans.fa": b"\xff\xfe\x00"}, r"line 1 of .*C\.elegans\.fa is not UTF-8 text .*convert"),
    ("genomes_small", {"C.elegans.fa": None}, r"genomes_small expects FASTA files A\.thaliana, "),
    ("qm9", {"qm9.txt": "\n\n"}, "holds no molecule"),
    ("qm9", {"qm9.txt": "CCO\nHello world\n"}, r"line 2 of .*qm9\.txt holds 'Hello', which is not SMILES"),
    ("qm9", {"qm9.txt": "C%12CCC%12\nC%(1)CC%(1)\n"}, r"holds 'C%\(1\)CC%\(1\)', which is not SMILES"),
    ("mnist", {"t10k-labels-idx1-ubyte": b"\0\0\x08"}, "is not an idx file of bytes"),
    ("mnist", {"t10k-labels-idx1-ubyte": idx(np.zeros(3))[:-1]}, "holds 2 of 3 bytes"),
    ("mnist", {"t10k-labels-idx1-ubyte": idx(np.zeros(4))}, r"have shapes \(3, 28, 28\) and \(4,\)"),
    ("mnist", {"t10k-labels-idx1-ubyte": idx(np.array([1, 2, 11]))}, "holds a label 11"),
    ("cifar10", {"test_batch.bin": b"\0" * 3073, "data_batch_1.bin": b"\0" * 5000}, "not a multiple of 3073"),
    ("imagenet32", {"val_data.npz": b"PK", "train_data_batch_1.npz": b"PK"}, r"train_data_batch_1\.npz is damaged"),
    ("lambada", {"test.jsonl.xz": lzma.compress(b"{}")[:-9]}, "a compressed file in .* is damaged"),
    ("lambada", {"test.jsonl.gz": gzip.compress(b"{}")[:-9]}, "a compressed file in .* is damaged"),
    ("lambada", {"test.jsonl.zst": b"hello"}, "a compressed file in .* is damaged"),
    ("text_files", {"a.txt.zip": b"PK\x05\x06" + bytes(18)}, r"is damaged \(no file in it can be read\)"),
    ("openwebtext", {"a.parquet": b"PAR1"}, r"a\.parquet is damaged or not a Parquet file"),
    ("text_files", {"a.txt.gz": gzip.compress(b"text")[:-9]}, "a compressed file in .* is damaged"),
    ("conala", {"conala-train.json": "["}, r"conala-train\.json is not JSON \(.*https://"),
    ("conala", {"conala-train.json": "[" * 100_000}, "is not JSON .*recursion"),
    ("conala", {"conala-train.json": "[1]"}, "is not a JSON list of records"),
    ("conala", {"conala-train.json": json.dumps([PAIR | {"snippet": " \n"}])}, "record 1 of .* has no snippet"),
    ("conala", {"conala-train.json": json.dumps([PAIR | {"question_id": True}])}, "has no question_id"),
    ("conala", {"conala-train.json": json.dumps([PAIR | {"question_id": 2}])}, "question 2 is in .* and in .*test"),
    ("conala", {"conala-train.json": None}, r"conala expects conala-train\.json and conala-test\.json"),
    ("humaneval", {"HumanEval.jsonl": b"\xff"}, "is not UTF-8 text"),
    ("humaneval", {"HumanEval.jsonl": ""}, "holds no problem"),
    ("humaneval", {"HumanEval.jsonl": '{"task_id": "a", "prompt": "b"}\n'}, "line 1 of .* has no canonical_solution"),
    ("tatoeba", {"deu.txt": "no tab here\n"}, "line 1 of .*deu.txt is not English, a tab, German"),
    (
        "iwslt14",
        {"train.de": "a\nb\n", "train.en": "a\n"},
        r"lines differ, 2 in .*train\.de and 1 in .*train\.en",
    ),
]
WHOLE = {"splice_sites": SITES, "genomes_small": GENOMES, "mnist": MNIST, "conala": CONALA}


@pytest.mark.parametrize(("source", "files", "message"), CASES)
def test_damaged_files_are_named(source, files, message, tmp_path):
    files = {name: content for name, content in (WHOLE.get(source, {}) | files).items() if content is not None}
    write(tmp_path, files)
    settings = SimpleNamespace(source=source, path=str(tmp_path), tokenizer="bytes", cache_dir=str(tmp_path / "cache"))
    settings = fields(source, tmp_path) if source in SIZES else settings
    with warnings.catch_warnings(action="ignore"), refused(rf"^data\.path: (?!.*data\.path: ).*{message}"):
        load_dataset(settings)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"sequence": "ACGT" * 4, "species_label": 10}, "row 0 of .* names the unknown species 10"),
        ({"sequence": "ACGT" * 4, "species_label": "Homo erectus"}, "names the unknown species 'Homo erectus'"),
        ({"sequence": None, "species_label": 1}, "row 0 of .* has no text field; expected sequence or seq"),
        ({"sequence": "hello world", "species_label": 1}, r"row 0 of .*: 'e' is not a nucleotide \(is it a protein"),
    ],
)
def test_damaged_tables_of_sequences_are_named(row, message, tmp_path):
    write_table(tmp_path / "a.parquet", [row])
    with refused(rf"data\.path: .*{message}"):
        load_dataset(fields("ten_species", tmp_path, cache_dir=str(tmp_path / "cache")))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": [[0], [0, 1]], "label": 1}, "row 0 of .* not an image"),
        ({"image": None, "label": 1}, "row 0 of .* not an image"),
    ],
)
def test_damaged_tables_of_images_are_named(row, message, tmp_path):
    for split in ("train", "test"):
        write_table(tmp_path / f"{split}.parquet", [row])
    with refused(rf"data\.path: .*{message}"):
        load_dataset(fields("mnist", tmp_path))


def test_names_of_files_need_not_be_text(tmp_path):
    name = os.fsdecode(b"\xff.txt")
    (tmp_path / name).write_text("the words of a text\n" * 200)
    settings = SimpleNamespace(source="text_files", path=str(tmp_path), tokenizer="bytes", length=16)
    settings.cache_dir = str(tmp_path / "cache")
    assert load_dataset(settings).split("train") and content_hash(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "ok"}\n\n{"text": \n', r"line 3 of .*a\.jsonl is not JSON"),
        ("a.jsonl", '{"text": "ok"}\n[1]\n', r"line 2 of .*a\.jsonl is not a JSON object"),
        ("a.jsonl", '{"words": "ok"}\n', r"line 1 of .*a\.jsonl has no text field; expected text"),
        ("a.jsonl", '{"text": [{"type": "p"}]}\n', r"line 1 of .*a\.jsonl has no text field"),
        ("a.jsonl", '{"text": "\\ud83d"}\n', r"line 1 of .*a\.jsonl is not Unicode text"),
        ("a.csv", 'text,label\n"a, b",1\n\nonly one\n', r"line 4 of .*a\.csv is damaged \(1 fields"),
        ("a.csv", 'text,label\n"a" b,1\n', r"line 2 of .*a\.csv is damaged"),
        ("a.tsv", "text\tlabel\na\n", r"line 2 of .*a\.tsv is damaged \(1 fields"),
        ("a.parquet", "PAR1 but no more", r"a\.parquet is damaged or not a Parquet file"),
    ],
)
def test_damaged_rows_are_named(name, content, message, tmp_path):
    write(tmp_path, {name: content})
    with refused(rf"data\.path: .*{message}"):
        for place, row in tables.rows(tmp_path / name):
            readers.text_of(row, ("text",), place)


@pytest.mark.parametrize(
    ("make", "files", "message"),
    [
        (subword.gpt2, {}, "gpt2 expects vocab.json or encoder.json"),
        (subword.wordpiece, {}, "wordpiece expects vocab.txt"),
        (subword.from_file, {}, "file expects tokenizer.json"),
        (subword.from_file, {"tokenizer.json": "{}"}, r".*is not a tokenizer\.json"),
        (subword.wordpiece, {"vocab.txt": "the\n"}, r".*vocab\.txt has no \[UNK\]"),
        (subword.gpt2, {"vocab.json": "{}", "merges.txt": ""}, r".*vocab\.json has no <\|endoftext\|>"),
        (subword.gpt2, {"vocab.json": "{", "merges.txt": ""}, r".*vocab\.json cannot be read \(Expecting"),
        (subword.gpt2, {"vocab.json": "7", "merges.txt": ""}, r".*vocab\.json cannot be read"),
        (subword.gpt2, {"vocab.json": '{"<|endoftext|>": "x"}', "merges.txt": ""}, r".*merges\.txt cannot be read"),
        (subword.gpt2, {"vocab.json": '{"<|endoftext|>": 0}', "merges.txt": "a"}, r".*merges\.txt cannot be read"),
        (subword.wordpiece, {"vocab.txt": b"\xff"}, r".*vocab\.txt cannot be read"),
    ],
)
def test_missing_and_damaged_vocabularies_are_named(make, files, message, tmp_path):
    for path in (str(write(tmp_path, files)), *(["", str(tmp_path / "none")] if not files else [])):
        with refused(rf"data\.tokenizer_path: {message}"):
            make(path)
