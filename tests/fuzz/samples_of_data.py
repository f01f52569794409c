"""Small data sets of every format, as the words of a command and the files that it reads."""

import bz2
import gzip
import io
import json
import lzma
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from diffusion.data.subword import byte_alphabet
from tests.fuzz.commands import ROOT
from tests.fuzz.mutations import archive

TABLE = f"--config={ROOT}/tests/fuzz/small_table.py:debug"
TRAIN = ("train", TABLE, "--row=MDLM, 4 steps")
PAIRS = ("train", f"--config={ROOT}/configs/fastdiss_translation.py:debug")
PROMPTS = ("plan", f"--config={ROOT}/configs/lidar_geneval.py:debug")
TEXT = "".join(f"the {number} words of the line that is read\n" for number in range(300)).encode()
SMILES = b"".join(b"C" * (1 + number % 7) + b"O" * (1 + number // 7) + b"\n" for number in range(80))
FASTA = "".join(
    f">record{number} kind={'ab'[number % 2]}\n{'ACGTTGCA' * (number + 4)}\n" for number in range(40)
).encode()
ROWS = [{"text": line, "source": line, "target": line.upper(), "label": 1} for line in TEXT.decode().splitlines()]


class Data(NamedTuple):
    """The words of a command, the fields of its data, and the files by name; `path` is the file or folder to read."""

    words: tuple[str, ...]
    fields: dict[str, object]
    files: dict[str, bytes]
    path: str = "data"


def text(files: dict[str, bytes], path: str = "data", **fields: object) -> Data:
    """Return a text of these files."""
    return Data(TRAIN, fields, files, path)


def values(source: str, files: dict[str, bytes], path: str = "data", **fields: object) -> Data:
    """Return ready-made examples of a source of these files."""
    usual = {"source": source, "tokenizer": "values"}
    return Data(TRAIN, usual | fields, files, path)


def parquet(rows: list[dict]) -> bytes:
    """Return rows as a Parquet file."""
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


def png(number: int, form: str = "PNG") -> bytes:
    """Return a small image."""
    stream, values = io.BytesIO(), np.random.default_rng(number).integers(0, 256, (5, 4, 3), np.uint8)
    Image.fromarray(values).save(stream, form)
    return stream.getvalue()


def saved(**arrays: np.ndarray) -> bytes:
    """Return arrays as an .npz file."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    """Return an array as an .npy file, as a pickle where it holds objects."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def idx(array: np.ndarray) -> bytes:
    """Return an array of bytes in the format of MNIST."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def lines(rows: list[dict]) -> bytes:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def separated(rows: list[dict], mark: str) -> bytes:
    """Return rows as separated values."""
    return "".join(mark.join(map(str, row)) + "\n" for row in (rows[0], *(row.values() for row in rows))).encode()


NUMBERS = np.random.default_rng(0).integers(0, 10, (12, 3072), np.uint8)
MNIST = {f"data/{name}-images-idx3-ubyte": idx(NUMBERS[:, :784].reshape(-1, 28, 28)) for name in ("train", "t10k")}
MNIST |= {f"data/{name}-labels-idx1-ubyte": idx(NUMBERS[:, 0]) for name in ("train", "t10k")}
IMAGE_ROWS = [{"image": NUMBERS[number].reshape(32, 32, 3).tolist(), "label": 1} for number in range(4)]
VOCABULARY = {token: number for number, token in enumerate([*sorted(byte_alphabet()), "<|endoftext|>"])}
GPT2 = {"data/vocab.json": json.dumps(VOCABULARY).encode(), "data/merges.txt": b"#version: 0.2\nt h\n"}
BERT = {"vocab.txt": "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"]).encode()}
MODEL = {"type": "WordLevel", "vocab": {"the": 0, "[UNK]": 1, "</s>": 2}, "unk_token": "[UNK]"}
FILE = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "model": MODEL}
FILE |= {"pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None}
CODES = {"codec.digits": 2}
IMAGES = {"length": 48, "vocab_size": 256}
PROMPT = {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}
FOLDER = {f"data/{name}.txt": TEXT[start:] for start, name in enumerate("abcd")}
CLASSES = {f"data/{'ab'[number % 2]}/{number}.png": png(number) for number in range(8)}
CIFAR = {f"data/{name}.bin": NUMBERS[:, :3072].repeat(2, 0)[:12].tobytes() for name in ("data_batch_1", "test_batch")}

DATA = {
    "text": text({"text.txt": TEXT}, "text.txt"),
    "folder": text(FOLDER, document="file"),
    "paragraphs": text({"text.txt": TEXT.replace(b"9", b"\n\n")}, "text.txt", document="paragraph", packing="padded"),
    "characters": text({"text.txt": TEXT}, "text.txt", tokenizer="characters"),
    "bpe": text({"text.txt": TEXT}, "text.txt", tokenizer="bpe", vocab_size=300),
    "gz": text({"text.txt.gz": gzip.compress(TEXT)}, "text.txt.gz"),
    "xz": text({"text.txt.xz": lzma.compress(TEXT)}, "text.txt.xz"),
    "bz2": text({"text.txt.bz2": bz2.compress(TEXT)}, "text.txt.bz2"),
    "zip": text({"text.txt.zip": archive(**{"text.txt": TEXT})}, "text.txt.zip"),
    "zst": text({"text.txt.zst": bytes(pyarrow.compress(TEXT, "zstd", asbytes=True))}, "text.txt.zst"),
    "jsonl": text({"data.jsonl": lines(ROWS)}, "data.jsonl", field="text"),
    "csv": text({"data.csv": separated(ROWS, ",")}, "data.csv", field="text"),
    "tsv": text({"data.tsv": separated(ROWS, "\t")}, "data.tsv", field="text"),
    "parquet": text({"data.parquet": parquet(ROWS)}, "data.parquet", field="text"),
    "splits": text({f"data/{name}.jsonl": lines(ROWS) for name in ("train", "valid", "test")}, field="text"),
    "fasta": values("fasta", {"a.fa": FASTA}, "a.fa", tokenizer="nucleotides"),
    "labeled": values("fasta", {"data/a.fa": FASTA, "data/b.fa": FASTA[::-1].replace(b"=", b"")}, labels="file"),
    "header": values("fasta", {"a.fa.gz": gzip.compress(FASTA)}, "a.fa.gz", labels="header", field="kind"),
    "smiles": values("smiles", {"a.smi": SMILES}, "a.smi", tokenizer="smiles", length=32),
    "smiles table": values("smiles", {"a.csv": b"smiles\n" + SMILES}, "a.csv", field="smiles", length=32),
    "qm9": values("qm9", {"data/QM9_smiles.txt": SMILES}, tokenizer="smiles", length=32, vocab_size=22),
    "images": values("image_files", CLASSES, **IMAGES),
    "formats": values(
        "image_files", {f"data/{name}": png(7, name) for name in ("gif", "bmp", "jpeg")} | CLASSES, **IMAGES
    ),
    "mnist": values("mnist", MNIST, length=784, vocab_size=256, validation_images=2),
    "cifar10": values("cifar10", CIFAR, length=3072, vocab_size=256, validation_images=2),
    "cifar10 table": values(
        "cifar10",
        {f"data/{name}.parquet": parquet(IMAGE_ROWS) for name in ("train", "test")},
        length=3072,
        vocab_size=256,
    ),
    "imagenet32": values(
        "imagenet32",
        {f"data/{name}.npz": saved(data=NUMBERS) for name in ("train_data_batch_1", "val_data")},
        length=3072,
        vocab_size=256,
    ),
    "enwiki2018": text({f"data/{name}.jsonl": lines(ROWS) for name in ("train", "valid", "test")}, source="enwiki2018"),
    "wikitext103": text(
        {f"data/wiki.{name}.tokens": TEXT for name in ("train", "valid", "test")}, source="wikitext103"
    ),
    "text8": text({"data/text8": TEXT}, source="text8", tokenizer="characters"),
    "openwebtext": text(
        {"data/openwebtext.jsonl": lines(ROWS), "data/urlsf.tar.xz": lzma.compress(TEXT)}, source="openwebtext"
    ),
    "lm1b": text({"data/news.en-00001-of-00100": TEXT}, source="lm1b"),
    "humaneval": text(
        {"data/HumanEval.jsonl": lines([{"prompt": "a", "canonical_solution": "b"}])}, source="humaneval"
    ),
    "conala": text({"data/conala-train.json": json.dumps([{"question_id": 1}]).encode()}, source="conala"),
    "python": text({"data/a.py": TEXT, "data/b/c.py": TEXT[1:]}, source="python_stdlib"),
    "pairs": Data(PAIRS, {"source": "pair_files"}, {"a": TEXT, "b": TEXT.upper()}, "a,b"),
    "pair table": Data(PAIRS, {"source": "pair_files"}, {"a.tsv": separated(ROWS, "\t")}, "a.tsv"),
    "pair lines": Data(
        PAIRS, {"source": "pair_files"}, {"data/train.jsonl": lines(ROWS), "data/test.jsonl": lines(ROWS)}
    ),
    "tatoeba": Data(PAIRS, {"source": "tatoeba"}, {"data/deu.txt": separated(ROWS, "\t")}),
    "geneval": Data(PROMPTS, {"source": "geneval"}, {"prompts.jsonl": lines([PROMPT] * 2)}, "prompts.jsonl"),
    "captions": Data(PROMPTS, {"source": "captions"}, {"prompts.txt": TEXT}, "prompts.txt"),
    "gpt2": text({"text.txt": TEXT} | GPT2, "text.txt", tokenizer="gpt2", tokenizer_path="data"),
    "wordpiece": text({"text.txt": TEXT} | BERT, "text.txt", tokenizer="wordpiece", tokenizer_path="vocab.txt"),
    "tokenizer": text(
        {"text.txt": TEXT, "tokenizer.json": json.dumps(FILE).encode()},
        "text.txt",
        tokenizer="file",
        tokenizer_path=".",
    ),
}
PERMUTED = np.random.default_rng(0).permutation(257)
CODED = {"perm.npy": npy(PERMUTED), "perm.json": json.dumps(PERMUTED.tolist()).encode()}
