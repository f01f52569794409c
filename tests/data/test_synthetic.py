"""Synthetic molecules and splice sites: correct by construction, and equal on every machine."""

import numpy as np
import pytest

from diffusion.data import load_dataset
from diffusion.metrics.genomes import predict_species, species_model, splice_rule
from diffusion.metrics.molecules import parse
from tests.checks import refused
from tests.data.files import fields, rows


def texts(data, split):
    """All examples of a split as texts, with their labels."""
    examples = rows(data, split)
    return [data.tokenizer.decode(row) for row in examples["tokens"]], examples.get("label")


def test_simple_molecules_are_valid_and_of_three_kinds():
    pytest.importorskip("rdkit")
    data = load_dataset(fields("simple_molecules"))
    assert (data.domain, data.labels) == ("molecules", 0)
    parts = [texts(data, split)[0] for split in ("train", "validation", "test")]
    everything = [text for part in parts for text in part]
    # 27 + 81 + 243 chains, as many rings, and a methyl group on every second atom that is not oxygen.
    assert len(everything) == len(set(everything)) == 351 * 2 + 351 * 2 // 3
    assert min(map(len, parts)) > 20
    assert all(molecule is not None for molecule in parse(everything))
    assert {"C1CC1", "CC(C)C", "ONO"} <= set(everything)
    assert data.fingerprint == load_dataset(fields("simple_molecules")).fingerprint


def test_simple_introns_obey_the_splice_rule_and_reveal_their_species():
    data = load_dataset(fields("simple_introns"))
    assert (data.domain, data.label_names) == ("genomes", ("rich_in_AT", "rich_in_GC", "rich_in_CT"))
    train, labels = texts(data, "train")
    assert all(map(splice_rule, train)) and {len(text) for text in train} == {140, 141, 142}
    assert np.bincount(labels).min() > 300
    by_species = {name: [] for name in data.label_names}
    for text, label in zip(train, labels, strict=True):
        by_species[data.label_names[label]].append(text)
    test, labels = texts(data, "test")
    assert np.mean(predict_species(test, species_model(by_species, 3)) == labels) > 0.95
    assert len(set(train) | set(test)) == len(train) + len(test)
    longer = load_dataset(fields("simple_introns", length=256))
    assert {len(text) for text in texts(longer, "validation")[0]} == set(range(140, 151))
    with refused(r"data\.length: 141 is too short; pass --config\.data\.length=142, or more"):
        load_dataset(fields("simple_introns", length=141))
