"""Damage to weights and checkpoints is found: no flipped bit gives other numbers."""

import gc
import json
import shutil
from contextlib import closing

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from diffusion.train.checkpoint import Checkpoints
from diffusion.train.divergence import Diverged
from diffusion.train.integrity import checksums, damaged
from diffusion.train.loop import Settings, train
from diffusion.train.mesh import make_mesh
from diffusion.train.population import Member
from diffusion.train.state import abstract_state, init_state
from diffusion.train.weights import load_weights, read_weights, save_weights
from tests.checks import LEFT_BY_ORBAX
from tests.train.conftest import BATCH, stream

MESH = make_mesh(1, 1, 1, jax.devices()[:1])
DTYPES = ("float32", "bfloat16", "float16", "int32", "uint8", "bool")


def flip(path, position, bit):
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1 << bit
    path.write_bytes(data)


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_change_of_an_element_changes_the_checksum(dtype):
    array = np.asarray(jnp.asarray(np.random.default_rng(0).integers(0, 2, (3, 5)), dtype))
    recorded = checksums({"a": array})
    for index in np.ndindex(array.shape):
        changed = array.copy()
        changed.view(np.uint8).reshape(*array.shape, -1)[index][-1] ^= 1
        assert damaged({"a": changed}, recorded) == ["a"]
    assert damaged({"a": array[::-1].copy()}, recorded) == ["a"]
    assert not damaged({"a": array, "b": array}, recorded)


def test_checksums_do_not_depend_on_the_devices(params):
    mesh = make_mesh(2, 4, 1)
    kernel = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    split = jax.device_put(kernel, NamedSharding(mesh, PartitionSpec("fsdp", None)))
    assert checksums([split]) == checksums([kernel])


@pytest.mark.slow
@LEFT_BY_ORBAX
def test_no_flipped_bit_of_a_checkpoint_changes_the_state(optimizer, init, tmp_path):
    """The state is that of the damaged checkpoint, where it can be read, or of the one before."""
    states = {step: init_state(init, optimizer, MESH, jax.random.key(step)) for step in (1, 2)}
    whole = tmp_path / "whole"
    checkpoints = Checkpoints(whole)
    for step, state in states.items():
        checkpoints.save(step, state)
    checkpoints.close()
    names = [path.relative_to(whole) for path in files_of(whole / "2")]
    rng, abstract, found = np.random.default_rng(0), abstract_state(init, optimizer, MESH), []
    sizes = np.array([(whole / name).stat().st_size for name in names])
    for trial in range(24):
        folder = tmp_path / str(trial)
        shutil.copytree(whole, folder)
        name = names[rng.choice(len(names), p=sizes / sizes.sum())]
        flip(folder / name, int(rng.integers(2**30)), int(rng.integers(8)))
        with closing(Checkpoints(folder)) as checkpoints:
            restored = checkpoints.restore(abstract)
        assert restored is not None
        found.append(
            next(
                step
                for step in states
                if jax.device_get(restored.ema["embedding"] == states[step].ema["embedding"]).all()
            )
        )
        chex.assert_trees_all_equal(jax.device_get(restored), jax.device_get(states[found[-1]]))
        shutil.rmtree(folder)
    assert set(found) == {1, 2}
    gc.collect()


def test_weights_of_half_precision_are_checked_in_the_type_that_they_are_stored_in(params, init, tmp_path):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), params)
    save_weights(tmp_path / "weights", half)
    restored = load_weights(tmp_path, init, MESH)
    chex.assert_trees_all_equal(jax.device_get(restored), jax.tree.map(np.float32, jax.device_get(half)))
    file = tmp_path / "weights" / "_CHECKPOINT_METADATA"
    record = json.loads(file.read_text())
    record["custom_metadata"]["checksums"]["embedding"] ^= 1
    file.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"^checkpoint: the weights in .* are damaged \(1 arrays .*embedding\)"):
        load_weights(tmp_path, init, MESH)


@pytest.mark.slow
@LEFT_BY_ORBAX
def test_no_flipped_bit_of_weights_changes_them(params, init, tmp_path):
    save_weights(tmp_path / "weights", params)
    rng, refusals, whole = np.random.default_rng(1), 0, files_of(tmp_path / "weights")
    for trial in range(24):
        folder = tmp_path / str(trial)
        shutil.copytree(tmp_path / "weights", folder / "weights")
        sizes = np.array([path.stat().st_size for path in whole])
        name = whole[rng.choice(len(whole), p=sizes / sizes.sum())].relative_to(tmp_path / "weights")
        flip(folder / "weights" / name, int(rng.integers(2**30)), int(rng.integers(8)))
        for read in (lambda folder: load_weights(folder, init, MESH), read_weights):
            try:
                restored = read(folder)
            except ValueError as error:
                assert "\n" not in str(error) and str(error).startswith("checkpoint: ")
                refusals += 1
            else:
                chex.assert_trees_all_equal(jax.device_get(restored), jax.device_get(params))
        shutil.rmtree(folder)
    assert refusals > 8
    gc.collect()


def test_divergence_in_the_last_step_is_not_saved(objective, init, tmp_path):
    """The loss of the last step is finite, and its update is not."""
    settings = Settings(steps=1, batch=BATCH, log_every=1, evaluate_every=1, checkpoint_every=1)
    ruinous = optax.scale(jnp.inf)
    with pytest.raises(Diverged, match=r"diverged at step 1: .*parameter arrays"):
        train(objective, init, [Member(ruinous, stream, jax.random.key(0), tmp_path)], settings, MESH)
    assert not Checkpoints(tmp_path / "checkpoints", read_only=True).steps()


def test_a_validation_loss_that_is_not_finite_is_divergence(objective, optimizer, init, tmp_path):
    settings = Settings(steps=2, batch=BATCH, log_every=1, evaluate_every=1, checkpoint_every=1)
    losses = iter([1.0, float("nan")])
    with pytest.raises(Diverged, match="step 2: validation loss = nan; "):
        member = Member(optimizer, stream, jax.random.key(0), tmp_path, evaluate=lambda params: next(losses))
        train(objective, init, [member], settings, MESH)
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).steps() == [1]


def test_the_best_checkpoint_is_known_after_a_restart(optimizer, init, tmp_path):
    state = init_state(init, optimizer, MESH, jax.random.key(0))
    for step, loss in ((1, 1.0), (2, 3.0), (3, None), (4, 2.0)):
        checkpoints = Checkpoints(tmp_path, latest=1)
        checkpoints.save(step, state, loss)
        checkpoints.close()
    assert Checkpoints(tmp_path, read_only=True).steps() == [1, 4]
