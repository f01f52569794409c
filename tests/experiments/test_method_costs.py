"""The tool that compares the costs of methods: sizes of networks, and a ratio per program."""

import subprocess
import sys

SIZES = """
import sys
from experiments.benchmarks import methods
methods.FLAGS(sys.argv)
model = methods.config(methods.predictor("block")).model
print(model.blocks, model.unroll, model.hidden)
"""


def sizes(*words):
    """Return blocks, blocks per iteration and width, from a separate process, because tools share names of flags."""
    done = subprocess.run([sys.executable, "-c", SIZES, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


def test_number_of_blocks_is_the_requested_one():
    assert sizes()[0] == 4
    assert sizes("--blocks=12") == [12, 12, 128]
    assert sizes("--size=small", "--blocks=6")[:2] == [6, 1]


def test_every_program_has_a_ratio_to_the_base():
    words = "--blocks=1 --batch=1 --repeats=2 --steps=1 --digits= --rates= --predictors=block".split()
    done = subprocess.run(
        [sys.executable, "-m", "experiments.benchmarks.methods", *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    head, *lines = [line for line in done.stdout.splitlines() if line]
    assert head.startswith("local, 1 blocks, batch 1, ")
    rows = [line for line in lines if line.startswith(("training", "sampling"))]
    assert [row.split("  ")[1].strip() for row in rows].count("MDLM") == 2
    assert any("G-Star, block" in row for row in rows) and all("[" in row for row in rows)
    assert all(float(row.split("[")[0].split()[-1]) > 0 for row in rows)
