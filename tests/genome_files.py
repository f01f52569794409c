"""Helpers of the tests of splice sites and genomes: random sequences, rows of data sets, and refused settings."""

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from diffusion.data import load_dataset

LETTERS = "ACGTN"
BEGIN, END, PAD = 5, 6, 7
RNG = np.random.default_rng(0)


def fields(source, path, **changes):
    size = 8 if source == "splice_sites" else 7
    settings = dict(source=source, path=str(path), tokenizer="nucleotides", length=16, vocab_size=size)
    return SimpleNamespace(**(settings | changes))


def rows(dataset, split):
    return dataset.split(split).rows(range(len(dataset.split(split))))


def labeled(dataset, split):
    batch = rows(dataset, split)
    return sorted(zip(map(tuple, batch["tokens"].tolist()), batch["label"].tolist(), strict=True))


def split_of(key):
    bucket = int(hashlib.md5(key.encode()).hexdigest(), 16) % 100
    return "validation" if bucket < 5 else "test" if bucket < 10 else "train"


def random_sequence(length, letters="ACGT"):
    return "".join(RNG.choice(list(letters), length))


def ids(text):
    return tuple(LETTERS.index(letter) for letter in text)


def real_data(name):
    root = os.environ.get("DIFFUSION_TEST_DATA")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"set DIFFUSION_TEST_DATA to a folder that holds {name}/ to check the real data")
    return Path(root) / name


def check_refusals(source, place):
    """Checks that missing files and fields that disagree with the source are named."""
    for path in ("", "/nowhere"):
        message = rf"data\.path: {source} expects .*; pass --config\.data\.path=FOLDER\. To get it: https"
        with pytest.raises(ValueError, match=message) as caught:
            load_dataset(fields(source, path))
        assert "\n" not in str(caught.value)
    for change, message in (
        ({"vocab_size": 4}, rf"data\.vocab_size: 4 does not fit {source}; pass --config\.data\.vocab_size=[78]"),
        ({"tokenizer": "values"}, rf"data\.tokenizer: 'values' does not fit {source}; .*tokenizer=nucleotides"),
        ({"packing": "padded"}, rf"data\.packing: 'padded' does not fit {source}"),
        ({"flip": True}, rf"data\.flip: {source} holds no images"),
    ):
        with pytest.raises(ValueError, match=message):
            load_dataset(fields(source, place, **change))
