"""The tool that compares the costs of methods: networks of the size that is asked for, and a ratio for each program."""

import subprocess
import sys

import pytest
from absl.testing import flagsaver

from experiments import step_cost


@pytest.fixture(autouse=True)
def parsed():
    step_cost.FLAGS(["step_cost"]) if not step_cost.FLAGS.is_parsed() else None


def test_blocks_are_those_asked_for():
    assert step_cost.config({}).model.blocks == 4
    with flagsaver.flagsaver(blocks=12):
        model = step_cost.config(step_cost.predictor("block")).model
        assert (model.blocks, model.unroll, model.hidden) == (12, 12, 128)
    with flagsaver.flagsaver(size="small", blocks=6):
        assert (step_cost.config({}).model.blocks, step_cost.config({}).model.unroll) == (6, 1)


def test_every_program_has_a_ratio_to_the_base():
    words = "--blocks=1 --batch=1 --repeats=2 --steps=1 --digits= --rates= --predictors=block".split()
    done = subprocess.run([sys.executable, "-m", "experiments.step_cost", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    head, *lines = [line for line in done.stdout.splitlines() if line]
    assert head.startswith("local, 1 blocks, batch 1, ")
    rows = [line for line in lines if line.startswith(("training", "sampling"))]
    assert [row.split("  ")[1].strip() for row in rows].count("MDLM") == 2
    assert any("G-Star, block" in row for row in rows) and all("[" in row for row in rows)
    assert all(float(row.split("[")[0].split()[-1]) > 0 for row in rows)
