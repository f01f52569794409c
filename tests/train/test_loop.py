"""The training loop: bitwise resumption, unreadable checkpoints, signals, and divergence."""

import os
import shutil
import signal

import chex
import jax
import jax.numpy as jnp
import pytest

from diffusion.train.checkpoint import Checkpoints
from diffusion.train.divergence import Diverged
from diffusion.train.loop import Interrupted, Settings, train
from diffusion.train.mesh import make_mesh
from diffusion.train.population import Member
from diffusion.train.state import abstract_state
from diffusion.train.weights import load_weights, save_weights
from diffusion.train.writers import Writer, read_metrics
from tests.checks import refused
from tests.train.conftest import BATCH, stream

SETTINGS = Settings(steps=6, batch=BATCH, ema=0.9, log_every=1, evaluate_every=3, checkpoint_every=3)


@pytest.fixture(scope="module")
def run(objective, optimizer, init):
    """Return `run(directory)`, which trains on one device."""
    mesh = make_mesh(1, 1, 1, jax.devices()[:1])

    def call(directory, settings=SETTINGS, batches=stream, mesh=mesh, objective=objective, **options):
        member = Member(optimizer, batches, jax.random.key(0), directory, **options)
        (state,) = train(objective, init, [member], settings, mesh)
        return state

    return call


@pytest.fixture(scope="module")
def reference(run, objective, tmp_path_factory):
    """Return the state and the directory of six steps without interruption, which trace the objective once."""
    directory = tmp_path_factory.mktemp("reference")
    return jax.device_get(run(directory, objective=chex.assert_max_traces(objective.__call__, n=1))), directory


def stop_at(step):
    """Return a stream of batches that sends this process a signal before a step."""

    def batches(first):
        for index, batch in enumerate(stream(first), first):
            if index == step:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    return batches


def recorded(seen):
    """Return the stream of batches, whose first steps are appended to a list."""
    return lambda first: seen.append(first) or stream(first)


def test_resumption_after_a_signal_is_bitwise_equal(run, reference, tmp_path):
    """The finished run only restores."""
    with pytest.raises(Interrupted) as stopped:
        run(tmp_path, batches=stop_at(2))
    assert stopped.value.code == 143
    seen = []
    state = run(tmp_path, batches=recorded(seen))
    assert 0 < seen[0] < 6
    chex.assert_trees_all_equal(jax.device_get(state), reference[0])
    steps = [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl") if "loss" in record]
    assert steps == [1, 2, 3, 4, 5, 6]
    again = run(tmp_path, batches=lambda first: iter(()))
    chex.assert_trees_all_equal(jax.device_get(again), reference[0])


def test_resume_on_other_devices_within_tolerance(run, reference, tmp_path):
    """Three steps on eight devices and three on four agree up to the rounding of sums."""
    with pytest.raises(Interrupted):
        run(tmp_path, batches=stop_at(2), mesh=make_mesh(2, 4, 1))
    state = run(tmp_path, mesh=make_mesh(4, 1, 1, jax.devices()[:4]))
    chex.assert_trees_all_close(jax.device_get(state.params), reference[0].params, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_unreadable_checkpoint_falls_back_to_the_previous_one(run, reference, tmp_path, damage):
    shutil.copytree(reference[1], tmp_path, dirs_exist_ok=True)
    newest = tmp_path / "checkpoints" / "6"
    files = [path for path in newest.rglob("*") if path.is_file() and "default" in str(path)]
    assert files
    for path in files:
        path.unlink() if damage == "remove" else os.truncate(path, path.stat().st_size // 2)
    seen = []
    state = run(tmp_path, batches=recorded(seen))
    assert seen == [3]
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


def test_divergence_raises_a_diagnosis_and_retains_the_last_checkpoint(run, poisoned, tmp_path):
    def batches(first):
        for index, batch in enumerate(stream(first), first):
            batch["weights"][1, 0] += index == 4
            yield batch

    with pytest.raises(Diverged, match=r"step 5: .*loss = nan.*parameter arrays.*learning_rate"):
        run(tmp_path, batches=batches, objective=poisoned)
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).steps() == [3]


def test_weights_round_trip_onto_another_mesh(params, init, tmp_path):
    save_weights(tmp_path / "weights", params)
    restored = load_weights(tmp_path / "weights", init, make_mesh(1, 8, 1))
    chex.assert_trees_all_equal(jax.device_get(restored), jax.device_get(params))
    with refused(r"checkpoint: .* holds no weights"):
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
