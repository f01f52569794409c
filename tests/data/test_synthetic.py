"""Synthetic molecules and splice sites: correct by construction, and equal on every machine."""

from types import SimpleNamespace

import numpy as np
import pytest

from diffusion.data import load_dataset
from diffusion.metrics.genomes import predict_species, species_model, splice_rule
from diffusion.metrics.molecules import parse

MOLECULES = dict(source="simple_molecules", tokenizer="smiles", length=16, vocab_size=9)
INTRONS = dict(source="simple_introns", tokenizer="nucleotides", length=144, vocab_size=8)


def texts(data, split):
    """All examples of a split as texts, with their labels."""
    rows = data.split(split).rows(range(len(data.split(split))))
    return [data.tokenizer.decode(row) for row in rows["tokens"]], rows.get("label")


def test_simple_molecules_are_valid_and_of_three_kinds():
    pytest.importorskip("rdkit")
    data = load_dataset(SimpleNamespace(**MOLECULES))
    assert (data.domain, data.labels) == ("molecules", 0)
    parts = {split: texts(data, split)[0] for split in ("train", "validation", "test")}
    everything = [text for part in parts.values() for text in part]
    # 27 + 81 + 243 chains, as many rings, and a methyl group on every second atom that is not oxygen.
    assert len(everything) == len(set(everything)) == 351 * 2 + 351 * 2 // 3
    assert min(map(len, parts.values())) > 20
    assert all(molecule is not None for molecule in parse(everything))
    assert {"C1CC1", "CC(C)C", "ONO"} <= set(everything)
    assert data.fingerprint == load_dataset(SimpleNamespace(**MOLECULES)).fingerprint


def test_simple_introns_obey_the_splice_rule_and_reveal_their_species():
    data = load_dataset(SimpleNamespace(**INTRONS))
    assert (data.domain, data.label_names) == ("genomes", ("rich_in_AT", "rich_in_GC", "rich_in_CT"))
    train, labels = texts(data, "train")
    assert all(map(splice_rule, train)) and {len(text) for text in train} == {140, 141, 142}
    assert np.bincount(labels).min() > 300
    model = species_model(
        {
            name: [t for t, n in zip(train, labels, strict=True) if n == label]
            for label, name in enumerate(data.label_names)
        },
        3,
    )
    test, labels = texts(data, "test")
    assert np.mean(predict_species(test, model) == labels) > 0.95
    assert len(set(train) | set(test)) == len(train) + len(test)
    longer = load_dataset(SimpleNamespace(**(INTRONS | dict(length=256))))
    assert {len(text) for text in texts(longer, "train")[0]} == set(range(140, 151))


def test_introns_that_exceed_the_length_are_refused():
    with pytest.raises(ValueError, match=r"data\.length: 141 is too short; pass --config\.data\.length=142, or more"):
        load_dataset(SimpleNamespace(**(INTRONS | dict(length=141))))
