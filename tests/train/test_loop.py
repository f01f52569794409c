"""The training loop: bitwise resumption, unreadable checkpoints, signals, and divergence."""

import os
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.train.checkpoint import Checkpoints
from diffusion.train.loop import Diverged, Interrupted, Settings, train
from diffusion.train.mesh import make_mesh
from diffusion.train.state import abstract_state
from diffusion.train.weights import load_weights, save_weights
from diffusion.train.writers import Writer, read_metrics
from tests.checks import refused
from tests.train.conftest import BATCH, MASK, batch_at, stream

SETTINGS = Settings(steps=6, batch=BATCH, ema=0.9, log_every=1, evaluate_every=3, checkpoint_every=3)


@pytest.fixture(scope="module")
def run(objective, optimizer, init):
    """Return `run(directory)`, which trains on one device."""
    mesh = make_mesh(1, 1, 1, jax.devices()[:1])

    def call(directory, settings=SETTINGS, batches=stream, mesh=mesh, objective=objective, **options):
        return train(objective, optimizer, init, batches, settings, mesh, jax.random.key(0), directory, **options)

    return call


@pytest.fixture(scope="module")
def reference(run, tmp_path_factory):
    """Return the state and the directory of six steps without interruption."""
    directory = tmp_path_factory.mktemp("reference")
    return jax.device_get(run(directory)), directory


def stop_at(step, number=signal.SIGTERM):
    """Return a stream of batches that sends this process a signal before a step."""

    def batches(first):
        for index in range(first, 100):
            if index == step:
                os.kill(os.getpid(), number)
            yield batch_at(index)

    return batches


def test_resumption_after_a_signal_is_bitwise_equal(run, reference, tmp_path):
    with pytest.raises(Interrupted) as stopped:
        run(tmp_path, batches=stop_at(2))
    assert stopped.value.code == 143
    seen = []

    def recorded(first):
        seen.append(first)
        return stream(first)

    state = run(tmp_path, batches=recorded)
    assert 0 < seen[0] < 6
    chex.assert_trees_all_equal(jax.device_get(state), reference[0])
    steps = [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl") if "loss" in record]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_finished_run_only_restores(run, reference):
    state, directory = reference
    again = run(directory, batches=lambda first: iter(()))
    chex.assert_trees_all_equal(jax.device_get(again), state)


@pytest.mark.parametrize("axes", [(4, 1, 1), (1, 2, 1)])
def test_resume_on_other_devices_within_tolerance(run, reference, tmp_path, axes):
    """Three steps on eight devices and three on four or two agree up to the rounding of sums."""
    with pytest.raises(Interrupted):
        run(tmp_path, batches=stop_at(2), mesh=make_mesh(2, 4, 1))
    devices = jax.devices()[: int(np.prod(axes))]
    state = run(tmp_path, mesh=make_mesh(*axes, devices))
    chex.assert_trees_all_close(jax.device_get(state.params), reference[0].params, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_unreadable_checkpoint_falls_back_to_the_previous_one(run, reference, tmp_path, damage):
    run(tmp_path)
    newest = tmp_path / "checkpoints" / "6"
    files = [path for path in newest.rglob("*") if path.is_file() and "default" in str(path)]
    assert files
    for path in files:
        path.unlink() if damage == "remove" else os.truncate(path, path.stat().st_size // 2)
    first = []
    state = run(tmp_path, batches=lambda start: first.append(start) or stream(start))
    assert first == [3]
    chex.assert_trees_all_equal(jax.device_get(state), reference[0])
    assert 6 in Checkpoints(tmp_path / "checkpoints", read_only=True).steps()


def test_checkpoint_of_another_model_raises_one_line(reference, optimizer, net):
    other = net.clone(hidden=32)
    init = lambda key: other.init(key, jnp.zeros((1, 8), jnp.int32))["params"]  # noqa: E731
    abstract = abstract_state(init, optimizer, make_mesh(1, 1, 1, jax.devices()[:1]))
    with refused(r"checkpoint: .* has shape"):
        Checkpoints(reference[1] / "checkpoints", read_only=True).restore(abstract)


def test_best_checkpoint_is_retained(run, tmp_path):
    losses = iter([1.0, 5.0, 4.0, 3.0])
    settings = Settings(steps=8, batch=BATCH, log_every=4, evaluate_every=2, checkpoint_every=2, keep=1)
    run(tmp_path, settings=settings, evaluate=lambda params: next(losses))
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).steps() == [2, 8]


def test_divergence_raises_a_diagnosis_and_retains_the_last_checkpoint(run, objective, tmp_path):
    def poisoned(params, batch, draws, train=True):
        total, metrics = objective(params, batch, draws)
        factor = jnp.where(batch["tokens"][1, 0] == MASK + 100, jnp.nan, 1.0)
        return total * factor, {"loss": (metrics["loss"][0] * factor, metrics["loss"][1])}

    def batches(first):
        for index in range(first, 100):
            batch = batch_at(index)
            if index == 4:
                batch["tokens"][1, 0] = MASK + 100
            yield batch

    with pytest.raises(Diverged, match=r"step 5: .*loss = nan.*parameter arrays.*learning_rate"):
        run(tmp_path, batches=batches, objective=poisoned)
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).steps() == [3]


def test_step_is_traced_once(run, objective, tmp_path):
    traces = []

    def counted(*inputs):
        traces.append(1)
        return objective(*inputs)

    run(tmp_path, objective=counted)
    assert len(traces) == 1


def test_weights_round_trip_onto_another_mesh(params, init, tmp_path):
    save_weights(tmp_path / "weights", params)
    restored = load_weights(tmp_path / "weights", init, make_mesh(1, 8, 1))
    chex.assert_trees_all_equal(jax.device_get(restored), jax.device_get(params))
    with pytest.raises(ValueError, match=r"checkpoint: .* holds no weights"):
        load_weights(tmp_path / "nowhere", init, make_mesh(8))


def test_metrics_after_the_resumed_step_are_deleted(tmp_path):
    writer = Writer(tmp_path, "run", {})
    for step in (1, 2, 3):
        writer.write(step, loss=float(step))
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # incomplete after a crash
    writer = Writer(tmp_path, "run", {}, resume_step=2)
    writer.write(3, loss=30.0)
    writer.close()
    assert [record["loss"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1.0, 2.0, 30.0]
