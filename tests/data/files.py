"""Files, settings and rows that tests of data sets share."""

import functools
import gzip
import hashlib
import json
import lzma
import os
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tensorflow_datasets as tfds

from diffusion.data import load_dataset

# Length and vocabulary of the examples of a source.
SIZES = {
    "mnist": (784, 256),
    "cifar10": (3072, 256),
    "cifar10_pairs": (2048, 4096),
    "imagenet32": (3072, 256),
    "image_files": (16, 256),
    "density2d": (2, 32),
    "blobs": (64, 16),
    "shapes": (768, 256),
    "shapes_rewards": (768, 256),
    "gaussian_mixture": (1, 1024),
    "simple_molecules": (16, 9),
    "simple_introns": (144, 8),
    "qm9": (16, 22),
    "splice_sites": (16, 8),
    "genomes_small": (16, 7),
    "ten_species": (16, 7),
    "fasta": (16, 1),
    "smiles": (16, 1),
}
TOKENIZERS = dict.fromkeys(("simple_molecules", "qm9", "smiles"), "smiles")
TOKENIZERS |= dict.fromkeys(("simple_introns", "splice_sites", "genomes_small", "ten_species", "fasta"), "nucleotides")


def fields(source, path="", /, **changes):
    """The settings of a source of ready-made examples."""
    length, size = SIZES[source]
    settings = dict(source=source, path=str(path), tokenizer=TOKENIZERS.get(source, "values"))
    settings |= dict(length=length, vocab_size=size, validation_images=2)
    return SimpleNamespace(**(settings | changes))


def rows(dataset, split):
    """All examples of a split."""
    return dataset.split(split).rows(range(len(dataset.split(split))))


def documents(source, split):
    """All texts or pairs of a split."""
    return list(source.documents[split]())


def split_of(key):
    """The split that the md5 of a key gives."""
    bucket = int(hashlib.md5(key.encode()).hexdigest(), 16) % 100
    return "validation" if bucket < 5 else "test" if bucket < 10 else "train"


def write(folder, files):
    """Write files of text or bytes, compressed as their suffix says, and return the folder.

    Bytes are written as they are.
    """
    packs = {
        ".gz": gzip.compress,
        ".xz": lzma.compress,
        ".zst": functools.partial(pyarrow.compress, codec="zstd", asbytes=True),
    }
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pack = packs.get(file.suffix, bytes)
        file.write_bytes(content if isinstance(content, bytes) else pack(content.encode()))
    return folder


def write_table(file, rows):
    """Write rows as Parquet, or as Arrow where the suffix says so."""
    table = rows if isinstance(rows, pyarrow.Table) else pyarrow.Table.from_pylist(rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        pyarrow.parquet.write_table(table, file)
        return
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def write_tfds(folder, name, feature, splits):
    """Prepare texts of each split as a data set of TFDS, in ArrayRecord."""
    features = tfds.features.FeaturesDict({feature: tfds.features.Text()})
    builder = tfds.core.GeneratorBasedBuilder
    methods = dict(
        VERSION=tfds.core.Version("1.0.0"),
        code_path=None,
        _info=lambda self: tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True),
        _split_generators=lambda self, manager: {
            split: enumerate({feature: text} for text in texts) for split, texts in splits.items()
        },
        _generate_examples=lambda self: None,
    )
    made = type(builder)(name, (builder,), methods, skip_registration=True)
    made(data_dir=str(folder), file_format="array_record").download_and_prepare()


def idx(array):
    """An array in the format of MNIST's files."""
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def real_data(name):
    """The folder of the real files; skips the test where there are none."""
    folder = Path(os.environ.get("DIFFUSION_TEST_DATA") or "/nonexistent") / name
    if not folder.is_dir():
        pytest.skip(f"set DIFFUSION_TEST_DATA to a folder that holds {name}/ to check the real data")
    return folder


def sizes(dataset):
    """The number of examples of each split."""
    return {name: len(split) for name, split in dataset.splits.items()}


LETTERS = "ACGTN"
RNG = np.random.default_rng(0)


def random_sequence(length, letters="ACGT"):
    return "".join(RNG.choice(list(letters), length))


def ids(text):
    """The tokens of nucleotides."""
    return tuple(LETTERS.index(letter) for letter in text)


def labeled(dataset, split):
    """Sorted pairs of tokens and label."""
    batch = rows(dataset, split)
    return sorted(zip(map(tuple, batch["tokens"].tolist()), batch["label"].tolist(), strict=True))


def loaded(settings):
    """Return the data set and the messages of its warnings."""
    with warnings.catch_warnings(record=True, action="always") as caught:
        dataset = load_dataset(settings)
    return dataset, [str(each.message) for each in caught if each.category is UserWarning]


def texts_of(dataset, split):
    return [dataset.tokenizer.decode(row) for row in rows(dataset, split)["tokens"]]
