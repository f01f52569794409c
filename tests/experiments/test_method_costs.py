"""The tool that compares the costs of methods: sizes of networks, and a ratio per program."""

import subprocess
import sys

import pytest

# In a separate process, because tools share names of flags; in the first program nothing is compiled.
SIZES = """
import time
from experiments.benchmarks import methods
for words in ([], ["--blocks=12"], ["--size=small", "--blocks=6"]):
    methods.FLAGS(["methods", *words])
    model = methods.config(methods.predictor("block")).model
    print(model.blocks, model.unroll, model.hidden)
methods.training = methods.sampling = lambda config: lambda: time.sleep(1e-4)
"""
COSTS = """
from experiments.benchmarks import methods
words = "--size=local --blocks=1 --batch=1 --repeats=2 --steps=1 --digits= --rates= --predictors=block"
methods.FLAGS(["methods", *words.split()])
methods.main([])
"""


def printed(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line]


def check_costs(head, *lines):
    assert head.startswith("local, 1 blocks, batch 1, ")
    rows = [line for line in lines if line.startswith(("training", "sampling"))]
    assert [row.split("  ")[1].strip() for row in rows].count("MDLM") == 2
    assert any("G-Star, block" in row for row in rows) and all("[" in row for row in rows)
    assert all(float(row.split("[")[0].split()[-1]) > 0 for row in rows)


def test_networks_have_the_requested_blocks_and_programs_a_ratio_to_the_base():
    usual, twelve, small, *lines = printed(SIZES + COSTS)
    assert usual[0] == "4" and twelve == "12 12 128" and small == "6 1 768"
    check_costs(*lines)


@pytest.mark.slow
def test_every_program_runs():
    check_costs(*printed(COSTS))
