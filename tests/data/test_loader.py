"""Loading of data sets: examples and statistics from files, the cache and its safety, and messages for bad input."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tensorflow_datasets.core import example_serializer

from diffusion.data import DataSettings, builder, dataset_from_arrays, load_dataset
from diffusion.data.tokenizers import bytes_tokenizer
from tests.checks import refused
from tests.data.files import rows, write

WORDS = "the cat sat on a mat while naïve ☃ snowmen melt slowly in some warm afternoon sun".split()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rng = np.random.default_rng(0)
    texts = {f"{number}.txt": " ".join(rng.choice(WORDS, 60)) for number in range(40)}
    return write(tmp_path_factory.mktemp("corpus"), texts)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def settings(corpus, cache):
    return DataSettings(source="text_files", path=str(corpus), tokenizer="bytes", length=16, cache_dir=str(cache))


@pytest.fixture(scope="module")
def dataset(settings):
    return load_dataset(settings)


def test_examples_hold_the_text_and_statistics_are_exact(dataset, cache):
    assert dataset.length == 16 and not dataset.padded
    for name, split in dataset.splits.items():
        examples, statistics = rows(dataset, name), dataset.statistics[name]
        assert examples["tokens"].dtype == np.int32 and examples["weights"].dtype == np.float32
        assert examples["tokens"].shape == (len(split), 16) and (examples["weights"] == 1).all()
        inner = examples["tokens"][:, 1:-1].reshape(-1)
        text = bytes(inner[inner < 256].astype(np.uint8))
        assert statistics.examples == len(split) and statistics.tokens == examples["tokens"].size
        assert statistics.bytes == len(text)
        assert statistics.characters == sum(byte & 0xC0 != 0x80 for byte in text)
    assert sum(statistics.documents for statistics in dataset.statistics.values()) == 40
    (folder,) = cache.glob(f"packed/*-{dataset.fingerprint[:16]}")
    record = json.loads((folder / "statistics.json").read_text())
    assert record["recipe"]["tokenizer_fingerprint"] == dataset.tokenizer.fingerprint
    assert len(record["recipe"]["content_hash"]) == 64
    assert record["splits"]["train"] == dataclasses.asdict(dataset.statistics["train"])
    assert "tensorflow" not in sys.modules


def test_a_second_load_reads_the_cache(settings, dataset, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("prepared again")

    monkeypatch.setattr(builder, "prepare", refuse)
    again = load_dataset(settings)
    assert again.fingerprint == dataset.fingerprint and again.statistics == dataset.statistics
    np.testing.assert_array_equal(rows(again, "train")["tokens"], rows(dataset, "train")["tokens"])
    for change in ({"length": 17}, {"bos_eos": False}, {"packing": "padded"}, {"tokenizer": "characters"}):
        with pytest.raises(AssertionError, match="prepared again"):
            load_dataset(dataclasses.replace(settings, **change))


def test_trained_tokenizers_learn_from_the_training_split(settings, cache):
    characters = load_dataset(dataclasses.replace(settings, tokenizer="characters"))
    assert characters.tokenizer.vocab_size == len(set(" ".join(WORDS))) + 1
    bpe = load_dataset(dataclasses.replace(settings, tokenizer="bpe", vocab_size=300))
    row = bpe.split("train").rows([0])["tokens"][0]
    assert any(word in bpe.tokenizer.decode(row) for word in WORDS)
    assert bpe.statistics["train"].bytes > bpe.statistics["train"].tokens
    assert list(cache.glob("tokenizers/bpe-text_files-*/tokenizer.json"))
    other = load_dataset(settings, tokenizer=bpe.tokenizer)
    assert other.fingerprint == bpe.fingerprint


def test_an_unfinished_preparation_is_not_used(settings, tmp_path, dataset):
    killed = dataclasses.replace(settings, cache_dir=str(tmp_path))
    program = (
        "import os, sys\n"
        "from diffusion.data import builder, load_dataset\n"
        "from diffusion.data.settings import DataSettings\n"
        "builder._publish = lambda *_: os._exit(9)\n"  # ends the process before the final rename
        f"load_dataset(DataSettings(**{dataclasses.asdict(killed)!r}))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    left = list((tmp_path / "packed").iterdir())
    assert len(left) == 1 and left[0].name.startswith(".")
    assert load_dataset(killed).statistics == dataset.statistics
    # A folder without its statistics (modified from outside) is replaced, not read.
    (folder,) = (path for path in (tmp_path / "packed").iterdir() if not path.name.startswith("."))
    (folder / builder.STATISTICS_FILE).unlink()
    shutil.rmtree(folder / "packed_examples")
    assert load_dataset(killed).statistics == dataset.statistics
    # Abandoned preparations are removed after a day.
    os.utime(left[0], (0, 0))
    (folder / builder.STATISTICS_FILE).unlink()
    load_dataset(killed)
    assert not left[0].exists()


@pytest.mark.parametrize("damage", ["shard", "statistics"])
def test_a_damaged_preparation_is_made_again(damage, settings, tmp_path, dataset):
    whole = dataclasses.replace(settings, cache_dir=str(tmp_path))
    load_dataset(whole)
    (folder,) = (tmp_path / "packed").iterdir()
    names = {"shard": "*/*/*-train.array_record-00000-of-00001", "statistics": builder.STATISTICS_FILE}
    (file,) = folder.glob(names[damage])
    file.write_bytes(file.read_bytes()[:-9])
    again = load_dataset(whole)
    assert again.statistics == dataset.statistics
    np.testing.assert_array_equal(rows(again, "train")["tokens"], rows(dataset, "train")["tokens"])


def test_records_are_those_of_tfds():
    """Also where the bytes of a short column occur elsewhere in a record, such as a zero."""
    for length, dtype, mark in ((1, np.uint8, 0), (2, np.uint16, None), (64, np.int32, None)):
        tokens = np.random.default_rng(0).integers(0, 200, (3, length)).astype(dtype)
        block = {"tokens": tokens, "weights": np.ones((3, length), np.uint8)}
        features = builder.features_of(block)
        specs = features.get_serialized_info()
        serializer = example_serializer.ExampleSerializer(specs)
        rows = [{name: column[row] for name, column in block.items()} for row in range(3)]
        expected = [serializer.serialize_example(features.encode_example(row)) for row in rows]
        with pytest.MonkeyPatch.context() as patch:
            if mark is not None:
                patch.setattr(builder, "marked", lambda column, _, mark=mark: np.full_like(column[0], mark))
            assert list(builder.serialized([block], features)) == expected


def test_shards_are_read_as_one(settings, tmp_path, dataset, monkeypatch):
    monkeypatch.setattr(builder, "SHARD_BYTES", 2000)
    parts = load_dataset(dataclasses.replace(settings, cache_dir=str(tmp_path)))
    assert len(list(tmp_path.glob("packed/*/*/*/*-train.array_record-*"))) > 5
    np.testing.assert_array_equal(rows(parts, "train")["tokens"], rows(dataset, "train")["tokens"])


def test_an_error_leaves_nothing_behind(settings, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("disk full")

    monkeypatch.setattr(builder, "write_shards", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        load_dataset(dataclasses.replace(settings, cache_dir=str(tmp_path)))
    assert list((tmp_path / "packed").iterdir()) == []


def test_two_preparations_of_one_recipe_agree(settings, tmp_path, dataset, monkeypatch):
    shared = dataclasses.replace(settings, cache_dir=str(tmp_path))
    publish = builder._publish

    def overtaken(work, folder):
        monkeypatch.setattr(builder, "_publish", publish)
        load_dataset(shared)  # the other process finishes first
        publish(work, folder)

    monkeypatch.setattr(builder, "_publish", overtaken)
    assert load_dataset(shared).statistics == dataset.statistics
    assert len(list((tmp_path / "packed").iterdir())) == 1


def test_short_splits_are_omitted_and_named(settings, tmp_path):
    write(tmp_path, {"short.txt": "word " * 100})
    file, cache = str(tmp_path / "short.txt"), str(tmp_path / "cache")
    short = dataclasses.replace(settings, path=file, length=60, cache_dir=cache)
    data = load_dataset(short)
    assert list(data.splits) == ["train"]
    with refused(r"has no 'validation' examples of length 60 \(it has: train\)"):
        data.split("validation")
    write(tmp_path, {"test.jsonl": '{"text": "x"}\n'})
    with refused(r"data\.tokenizer: 'bpe' learns from a training split"):
        load_dataset(DataSettings("lambada", str(tmp_path)))
    with refused(r"data\.length: the train split of text_files has no example of 1000 tokens"):
        load_dataset(dataclasses.replace(short, length=1000))
    assert len(list((tmp_path / "cache" / "packed").iterdir())) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": "16"}, r"data\.length: expected int, got '16'"),
        ({"length": 2}, r"data\.length: 2 is too small"),
        ({"length": True}, r"data\.length: expected int"),
        ({"packing": "loose"}, r"data\.packing: unknown 'loose'; known: wrapped, padded"),
        ({"document": "page"}, r"data\.document: unknown 'page'"),
        ({"tokenizer": "morse"}, r"data\.tokenizer: unknown 'morse'; known: bytes, characters, bpe"),
        ({"tokenizer": "bpe", "vocab_size": 100}, r"data\.vocab_size: 100 is too small"),
        ({"validation_documents": 0}, r"data\.validation_documents: 0"),
        ({"tokenizer": "characters", "alphabet": "ab"}, r"data\.alphabet: character"),
        ({"cache_dir": "/proc/nowhere"}, r"data\.cache_dir: cannot write"),
        ({"path": "/does/not/exist"}, r"data\.path: '/does/not/exist' does not exist; pass --config\.data\.path="),
    ],
)
def test_bad_fields_are_named(settings, fields, message):
    with refused(message):
        load_dataset(SimpleNamespace(**(dataclasses.asdict(settings) | fields)))


def test_ready_made_arrays_are_checked():
    tokens, tokenizer = np.arange(12).reshape(3, 4), bytes_tokenizer()
    data = dataset_from_arrays({"train": tokens}, tokenizer)
    assert data.split("train").rows([2])["tokens"].tolist() == [[8, 9, 10, 11]]
    assert data.statistics["train"].tokens == 12 and not data.padded
    tokens[1, 1] = 258  # padding, which has weight 0
    padded = dataset_from_arrays({"train": tokens}, tokenizer, {"train": tokens != 258})
    assert padded.padded and padded.statistics["train"].tokens == 11
    assert padded.fingerprint != data.fingerprint
    with refused("token id 258"):
        dataset_from_arrays({"train": tokens}, tokenizer)
    with refused("token id 300 is outside the vocabulary"):
        dataset_from_arrays({"train": tokens + 42}, tokenizer, {"train": tokens != 258})
    with refused("expected shapes"):
        dataset_from_arrays({"train": tokens, "test": tokens[:, :2]}, tokenizer)
