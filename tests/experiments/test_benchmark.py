"""The benchmark against PyTorch: alternate timings, and ratios in its result."""

import json
import subprocess
import sys

import pytest

from experiments.benchmarks.pytorch import measure, spread


def test_sides_alternate_and_the_first_repeat_is_not_counted():
    calls = []
    sides = {
        side: {kind: lambda side=side, kind=kind: calls.append((kind, side)) for kind in ("training", "sampling")}
        for side in ("ours", "torch")
    }
    seconds = measure(sides, repeats=2, steps=1)
    assert calls[:4] == [("training", "ours"), ("training", "torch"), ("sampling", "ours"), ("sampling", "torch")]
    assert len(calls) == 12 and all(len(seconds[kind][side]) == 2 for kind in seconds for side in sides)
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_benchmark_writes_positive_ratios(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is an optional dependency: pip install torch")
    output = tmp_path / "result.json"
    command = f"-m experiments.benchmarks.pytorch --size=debug --repeats=1 --steps=1 --nomemory --output={output}"
    done = subprocess.run([sys.executable, *command.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    for kind in ("training", "sampling"):
        assert result["ratio"][kind]["min"] > 0 and kind in done.stdout
    assert result["peak_mib"] > 100
