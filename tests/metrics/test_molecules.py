"""Validity, uniqueness and novelty of known SMILES."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.data import symbol_tokenizers
from diffusion.metrics import molecules
from diffusion.metrics.molecules import (
    canonical,
    canonical_set,
    label_pairs,
    molecule_grid,
    molecule_scores,
    parse,
    properties,
    ring_counts,
    ring_labels,
)
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
    # CCO twice is one string; OCC and the other spelling of benzene are different strings, and not in the set.
    expected = dict(samples=15, valid=9, unique=6, novel=4, unique_strings=8, novel_strings=6)
    expected |= dict(valid_rate=9 / 15, unique_rate=6 / 9, novel_rate=4 / 6)
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    assert molecule_scores(VALID, {"CCO", "C"}, {"CCO", "OCC", "C"})["novel_strings"] == 5
    # Nothing valid and nothing new are results as well.
    scores = molecule_scores(INVALID, {"C"})
    assert scores["valid"] == scores["unique"] == scores["novel"] == scores["valid_rate"] == scores["novel_rate"] == 0
    assert "qed" not in scores and "valid_rings" not in scores and "qed" not in molecule_scores(["OCC"], {"CCO"})
    with refused(r"sample\.count"):
        molecule_scores([], {"C"})


def test_properties_are_means_over_the_novel():
    benzene, hydrocyanic = properties(["c1ccccc1"]), properties(["C#N"])
    assert benzene["rings"] == 1 and benzene["logp"] == pytest.approx(1.6866, abs=1e-4)
    assert benzene["qed"] == pytest.approx(0.4426, abs=1e-3) and hydrocyanic["rings"] == 0
    scores = molecule_scores(["C1=CC=CC=C1", "c1ccccc1", "C#N", "CCO"], {"CCO"})
    for name in ("qed", "rings", "logp"):
        assert scores[name] == pytest.approx((benzene[name] + hydrocyanic[name]) / 2)


# Molecules like those of QM9: chains, fused, bridged and spiro rings, a cage, charges, and labels that are used again.
RINGED = """CC(=O)N C1CC1 C1CC2CC2C1 C12CC1C2 C1C2CC1C2 C1CC11CC1 OC1C2CC12 c1ccc2[nH]ccc2c1 C1CC2CCC1C2 CC1=CN=C2CC12
[NH3+]C1CC1 C12C3C4C1C5C2C3C45 O=C1OC2CC12 N1C2C3C1C23 C1CC1C1CC1 [O-]C(=O)C1CC1 C1C2C3C1C23 C%10CC%10
C=1CCC=1""".split()


def test_ring_labels_in_pairs_are_the_rings_of_a_molecule():
    """Those of RDKit's smallest set of smallest rings, from tokens alone; symmetrized, bridges and cages have more."""
    from rdkit import Chem

    symbols = symbol_tokenizers.smiles_vocabulary(RINGED)
    encoded = symbol_tokenizers.smiles_ids(symbols)(RINGED)
    labels = np.pad(ring_labels(symbols), ((0, 1), (0, 0)))
    tokens = np.full((len(RINGED), 40), len(symbols), np.int32)  # padding, which is no label
    for row, ids in zip(tokens, encoded, strict=True):
        row[: len(ids)] = ids
    counts = np.asarray(label_pairs(jnp.asarray(tokens), labels))
    assert counts.tolist() == [len(Chem.GetSSSR(molecule)) for molecule in parse(RINGED)]
    more = ring_counts(RINGED) - counts
    assert counts.max() == 5 and more[RINGED.index("C12C3C4C1C5C2C3C45")] == 1
    assert more.min() == 0 and 0.1 < (more > 0).mean() < 0.5


def test_rings_of_samples():
    assert ring_counts(["C1CC1", "C1CC", "CCO", "C1CC2CCC1C2", ""]).tolist() == [1, 0, 0, 2, 0]
    scores = molecule_scores(["C1CC1", "C1CC1", "CCO", "C1CC"], known={"C1CC1"})
    assert scores["valid_rings"] == pytest.approx(2 / 3) and scores["rings"] == 0
    labels = ring_labels(["C", "1", "%10", "[13CH2]", "2", "%01"])
    assert labels.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]]
    # Three labels 1 are one pair, and those of different labels are none.
    assert label_pairs(jnp.array([[1, 1, 5, 0], [1, 4, 2, 0], [1, 5, 4, 4]]), labels).tolist() == [1, 0, 2]


def test_training_sets_are_cached_by_content(tmp_path, monkeypatch):
    with pytest.warns(UserWarning, match=r"RDKit cannot parse 1 of 4 different training molecules, such as 'C1CC'"):
        known = canonical_set(["OCC", "CCO", "C1CC", "C1=CC=CC=C1"], tmp_path / "cache")
    assert known == {"CCO", "c1ccccc1"} == canonical_set(["OCC", "c1ccccc1"])
    (file,) = (tmp_path / "cache").iterdir()
    assert file.read_text() == "CCO\nc1ccccc1\n"
    calls = []
    monkeypatch.setattr(molecules, "canonical", lambda smiles: calls.append(smiles) or [])
    assert canonical_set(["CCO", "C1=CC=CC=C1", "C1CC", "OCC"], tmp_path / "cache") == known, "in any order"
    assert not calls and canonical_set(["CCO"], tmp_path / "cache") == frozenset() and calls == [["CCO"]]


def test_molecules_are_drawn():
    grid = molecule_grid(["C1CC", *["CCO", "c1ccccc1"] * 4], shown=5, columns=3)
    assert grid.dtype == np.uint8 and grid.shape == (2 * 160, 3 * 200, 3)
    cells = grid.reshape(2, 160, 3, 200, 3)
    ink = (cells < 128).any(axis=-1).sum(axis=(1, 3))
    assert (ink.ravel()[:5] > 50).all() and ink[1, 2] == 0, "five molecules, and a sixth place that is empty"
    assert molecule_grid(INVALID) is None


def test_without_rdkit_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit.Chem", None)
    monkeypatch.delattr("rdkit.Chem")
    with refused(r"data\.source: molecules are measured with RDKit.*pip install rdkit"):
        parse(["C"])
