"""Validity, uniqueness and novelty of known SMILES."""

import sys

import numpy as np
import pytest

from diffusion.metrics import molecules
from diffusion.metrics.molecules import canonical, canonical_set, molecule_scores, parse, picture, properties
from tests.checks import refused

pytest.importorskip("rdkit")

# Six molecules in eight strings, and four invalid strings: an open ring, the empty string, five bonds, and a mask.
VALID = ["CCO", "OCC", "CCO", "c1ccccc1", "C1=CC=CC=C1", "C", "C#N", "[NH4+]", "CC.O"]
INVALID = ["C1CC", "", "C(C)(C)(C)(C)C", "CC▢O", "CCO name", " "]


def test_valid_is_what_rdkit_parses_and_is_not_empty(capfd):
    assert all(parse(VALID)) and not any(parse(INVALID))
    assert canonical(["OCC", "C1CC", "C1=CC=CC=C1"]) == ["CCO", None, "c1ccccc1"]
    assert capfd.readouterr() == ("", ""), "RDKit's messages are silenced"
    from rdkit import Chem

    Chem.MolFromSmiles("C1CC")
    assert "C1CC" in capfd.readouterr().err, "but not those of others"


def test_counts_are_of_molecules_and_of_strings():
    scores = molecule_scores(VALID + INVALID, known={"CCO", "C"})
    counts = {name: scores[name] for name in ("samples", "valid", "unique", "novel")}
    assert counts == {"samples": 15, "valid": 9, "unique": 6, "novel": 4}
    # CCO twice is one string; OCC and the other spelling of benzene are different strings, and not in the set.
    assert scores["unique_strings"] == 8 and scores["novel_strings"] == 6
    assert molecule_scores(VALID, {"CCO", "C"}, {"CCO", "OCC", "C"})["novel_strings"] == 5
    rates = [scores[name] for name in ("valid_rate", "unique_rate", "novel_rate")]
    np.testing.assert_allclose(rates, [9 / 15, 6 / 9, 4 / 6])


def test_properties_are_means_over_the_novel():
    benzene, hydrocyanic = properties(["c1ccccc1"]), properties(["C#N"])
    assert benzene["rings"] == 1 and benzene["logp"] == pytest.approx(1.6866, abs=1e-4)
    assert benzene["qed"] == pytest.approx(0.4426, abs=1e-3) and hydrocyanic["rings"] == 0
    scores = molecule_scores(["C1=CC=CC=C1", "c1ccccc1", "C#N", "CCO"], {"CCO"})
    for name in ("qed", "rings", "logp"):
        assert scores[name] == pytest.approx((benzene[name] + hydrocyanic[name]) / 2)
    assert properties(["C1CC2CCC1C2"])["rings"] == 2


def test_nothing_valid_or_nothing_new_is_a_result():
    scores = molecule_scores(INVALID, {"C"})
    assert scores["valid"] == scores["unique"] == scores["novel"] == scores["valid_rate"] == scores["novel_rate"] == 0
    assert "qed" not in scores and "qed" not in molecule_scores(["OCC"], {"CCO"})
    with refused(r"sample\.count"):
        molecule_scores([], {"C"})


def test_training_sets_are_cached_by_content(tmp_path, monkeypatch):
    known = canonical_set(["OCC", "CCO", "C1CC", "C1=CC=CC=C1"], tmp_path / "cache")
    assert known == {"CCO", "c1ccccc1"} == canonical_set(["OCC", "c1ccccc1"])
    (file,) = (tmp_path / "cache").iterdir()
    assert file.read_text() == "CCO\nc1ccccc1\n"
    calls = []
    monkeypatch.setattr(molecules, "canonical", lambda smiles: calls.append(smiles) or [])
    assert canonical_set(["CCO", "C1=CC=CC=C1", "C1CC", "OCC"], tmp_path / "cache") == known, "in any order"
    assert not calls and canonical_set(["CCO"], tmp_path / "cache") == frozenset() and calls == [["CCO"]]


def test_molecules_are_drawn():
    grid = picture(["C1CC", *["CCO", "c1ccccc1"] * 4], shown=5, columns=3)
    assert grid.dtype == np.uint8 and grid.shape == (2 * 160, 3 * 200, 3)
    cells = grid.reshape(2, 160, 3, 200, 3)
    ink = (cells < 128).any(axis=-1).sum(axis=(1, 3))
    assert (ink.ravel()[:5] > 50).all() and ink[1, 2] == 0, "five molecules, and a sixth place that is empty"
    assert picture(INVALID) is None


def test_without_rdkit_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit.Chem", None)
    monkeypatch.delattr("rdkit.Chem")
    with pytest.raises(ValueError, match=r"data\.source: molecules are measured with RDKit.*pip install rdkit"):
        parse(["C"])
