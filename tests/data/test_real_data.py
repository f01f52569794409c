"""The real files, where DIFFUSION_TEST_DATA names their folder: known sizes, first labels and hashes."""

import hashlib

import numpy as np
import pytest

from diffusion.data import load_dataset
from diffusion.data.settings import DataSettings
from diffusion.data.sources import open_source
from tests.data.files import documents, fields, real_data, rows, sizes


@pytest.mark.parametrize(
    ("source", "folder", "settings", "expected"),
    [
        ("mnist", "mnist", {"validation_images": 5000}, (55_000, 5_000, 10_000)),
        ("qm9", "qm9_smiles", {"length": 32, "vocab_size": 44}, (119_771, 6_626, 6_617)),
        ("splice_sites", "splice_sites", {"length": 256}, (122_508, 6_835, 6_863)),
        ("genomes_small", "genomes_small", {"length": 256}, (29_175, 1_235, 1_603)),
    ],
)
@pytest.mark.filterwarnings("ignore:data.path")
def test_arrays_have_their_known_sizes(source, folder, settings, expected):
    data = load_dataset(fields(source, real_data(folder), **settings))
    assert sizes(data) == dict(zip(("train", "validation", "test"), expected, strict=True))
    test = rows(data, "test")
    if source == "mnist":
        assert test["label"][:5].tolist() == [7, 2, 1, 0, 4]
        assert test["tokens"].mean() == pytest.approx(0.1325 * 255, rel=1e-3)
    if source == "splice_sites":
        assert np.bincount(test["label"]).tolist() == [3259, 2689, 915]
        # The intron begins with GT after an exon of 50.
        assert (test["tokens"][:, 51] == 2).all() and (test["tokens"][:, 52] == 3).all()


def test_programs_have_their_known_numbers():
    expected = {"conala": {"train": 2258, "validation": 121, "test": 500}, "humaneval": {"test": 164}}
    for name, counts in expected.items():
        source = open_source(DataSettings(name, str(real_data(name))))
        assert {split: len(documents(source, split)) for split in source.documents} == counts


def test_27_symbols_of_enwiki_have_the_recorded_hashes():
    source = open_source(DataSettings("enwiki2018", str(real_data("enwiki2018")), symbols27=True))
    recorded = {
        "train": (55_566_282, "940f9f762ebdda58690ab3f09bfbe99e50ebe262d0918806423df834b1c0aed7"),
        "validation": (540_737, "e56ebc95ae70d784d20c0100f8edfe7f3ec2fb29ec030ead7fad660f82d1942e"),
        "test": (589_101, "eac2628297bbfe9cbf2e745428cae5d08faebff1e279da374a45078d51b2b533"),
    }
    for split, (length, sha256) in recorded.items():
        (text,) = documents(source, split)
        assert (len(text), hashlib.sha256(text.encode()).hexdigest()) == (length, sha256)
