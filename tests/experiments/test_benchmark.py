"""The benchmark against PyTorch: alternate timings, and ratios in its result."""

import json
import subprocess
import sys

import pytest

from experiments.benchmarks.pytorch import measure, ratios, spread


def test_sides_alternate_and_the_first_repeat_is_not_counted():
    calls = []
    sides = {
        side: {kind: lambda side=side, kind=kind: calls.append((kind, side)) for kind in ("training", "sampling")}
        for side in ("ours", "torch")
    }
    seconds = measure(sides, repeats=2, steps={"training": 1, "sampling": 1})
    assert calls[:4] == [("training", "ours"), ("training", "torch"), ("sampling", "ours"), ("sampling", "torch")]
    assert len(calls) == 12 and all(len(seconds[kind][side]) == 2 for kind in seconds for side in sides)
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_ratios_are_paired_by_repeat():
    assert ratios({"ours": [1.0, 2.0], "torch": [2.0, 8.0]}) == {"torch": {"median": 3.0, "min": 2.0, "max": 4.0}}
    assert ratios({"torch": [2.0]}) == {}


def test_benchmark_writes_positive_ratios(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is an optional dependency: pip install torch")
    output = tmp_path / "result.json"
    command = "-m experiments.benchmarks.pytorch --size=debug --repeats=1 --steps=1 --sampler_steps=2 --cores=1"
    command += f" --sides=ours,reference,public --output={output}"
    done = subprocess.run([sys.executable, *command.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    for kind in ("training", "sampling"):
        assert all(ratio["min"] > 0 for ratio in result["ratio"][kind].values()) and kind in done.stdout
        assert list(result["ratio"][kind]) == ["reference", "public"]
    assert result["peak_mib"] > 100 and result["cores"] == 1
    assert set(result["matmul_gflops"]) == {"jax", "torch"}


def test_the_public_network_has_the_loss_and_the_law_of_the_reference():
    """-log p of masked tokens is the same, and known tokens keep themselves with probability 1."""
    torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency: pip install torch")
    from experiments.benchmarks.torch_peers import masked_loss, substituted

    generator = torch.Generator().manual_seed(0)
    logits, tokens = torch.randn(2, 3, 5, generator=generator), torch.tensor([[0, 1, 2], [3, 0, 1]])
    noisy = torch.where(torch.tensor([[True, False, True], [False, False, True]]), 4, tokens)
    log_p = substituted(logits.clone(), noisy, 4)
    nats = -torch.gather(log_p, -1, tokens[:, :, None])[..., 0]
    torch.testing.assert_close(nats, masked_loss(logits.clone(), noisy, tokens, 4))
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(2, 3))
    assert (log_p.exp()[noisy != 4].max(-1).indices == noisy[noisy != 4]).all()


def test_attention_in_blocks_is_timed_beside_whole_products():
    command = "-m experiments.benchmarks.attention --lengths=64,128 --tokens=128 --repeats=2 --cores=1"
    done = subprocess.run([sys.executable, *command.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ") and " x " in line][1:]
    assert [[cell.strip() for cell in row[:2]] for row in rows] == [
        [shape, kind] for shape in ("2 x 64", "1 x 128") for kind in ("forward", "gradient")
    ]
    assert all(float(cell) > 0 for row in rows for cell in (*row[2:4], row[4].split("[")[0], *row[5:]))


def test_large_vocabularies_have_memory_and_time_for_each_number_of_pieces():
    command = "-m experiments.benchmarks.vocabulary --variant=debug --vocabulary=300 --pieces=0,4 --repeats=2 --row=AR"
    done = subprocess.run([sys.executable, *command.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[0].strip() for row in rows] == ["0", "4"]
    assert float(rows[0][3].split("[")[0]) == 1


@pytest.mark.slow
def test_cores_take_turns_as_threads_and_as_devices():
    command = "-m experiments.benchmarks.cores --variant=debug --batches=4 --repeats=1 --steps=2"
    done = subprocess.run([sys.executable, *command.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [cell.strip().split(" ")[-1] for cell in table[0]] == ["", "core", "threads", "devices"]
    assert len(table) == 3 and all("(" in cell for row in table[1:] for cell in row[2:])
