"""Paths and shapes of the parameters of every network with committed rows, whose stored weights must remain valid."""

import json
from pathlib import Path

import jax
import pytest

from experiments import families
from experiments.identity import digest
from experiments.plan import read_config

FOLDER = Path(__file__).parents[2] / "experiments" / "results"
RESULTS = {file.name.partition(".")[0]: file for file in sorted(FOLDER.glob("*.jsonl"))}
SECTIONS = ("model", "codec", "memory", "predictor")
NETS = ("unet", "classifier", "captioned_unet", "encoder_decoder", "reward")
SIZES = ("source", "length", "source_length", "vocab_size", "packing")


def networks(file):
    """Return the stored config of every network of a file, by its first row."""
    networks = {}
    for row in map(json.loads, file.read_text().splitlines()):
        config = row["config"]
        parts = [config.get(name) for name in SECTIONS + NETS], [config["data"].get(name) for name in SIZES]
        if families.FAMILIES[config["model"].get("net", "dit")].TRAINED:
            networks.setdefault(digest(parts), (row["row"], config))
    return dict(networks.values())


def shapes(config, folder):
    """Return the shape of every array, and its type unless it is float32, by its path."""
    (folder / "config.json").write_text(json.dumps(config))
    config = read_config(folder)
    params = jax.eval_shape(families.system(config, config.data.vocab_size).init, jax.random.key(0))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): "x".join(map(str, leaf.shape))
        + ("" if leaf.dtype == "float32" else f" {leaf.dtype}")
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


@pytest.mark.parametrize("name", RESULTS)
def test_parameters_of_committed_rows(golden, name, tmp_path):
    by_row = {}
    for row, config in networks(RESULTS[name]).items():
        params = shapes(config, tmp_path)
        # Rows that differ only in training have the same network.
        if params not in by_row.values():
            by_row[row] = params
    golden(name, by_row)


def test_every_record_has_a_file_of_rows(golden):
    golden.complete(list(RESULTS))
