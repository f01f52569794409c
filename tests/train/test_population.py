"""Several trainings as one program: each is the training that it is alone, also after interruptions."""

import os
import shutil
import signal
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.dit import DiT
from diffusion.objectives.elbo import Nelbo
from diffusion.partition import MEMBERS
from diffusion.processes.masking import MaskedDiffusion
from diffusion.readout import SplitDenoiser
from diffusion.rng import draws
from diffusion.schedules.masking import LogLinear
from diffusion.train.checkpoint import Checkpoints
from diffusion.train.divergence import Diverged
from diffusion.train.loop import Interrupted, Settings, train
from diffusion.train.mesh import make_mesh
from diffusion.train.optimizer import adamw
from diffusion.train.population import Member
from diffusion.train.writers import read_metrics
from tests.train.conftest import BATCH, MASK, batch_at, stream

SETTINGS = Settings(steps=6, batch=BATCH, ema=0.9, log_every=2, evaluate_every=3, checkpoint_every=3)
RATES = (1e-2, 1e-3, 3e-3, 3e-2)


def mesh_of(data, fsdp=1):
    return make_mesh(data, fsdp, 1, jax.devices()[: data * fsdp])


def members_in(folder, count=4, batches=lambda index: stream, **options):
    """Return trainings with rates and seeds of their own, each with its own batches."""
    return [
        Member(
            adamw(peak=RATES[index], warmup=2, steps=10, weight_decay=0.1 * index),
            lambda step, index=index: batches(index)(step + 100 * index),
            jax.random.key(index),
            folder / str(index),
            evaluate=lambda params: float(jnp.sum(jnp.abs(params["embedding"]))),
            **options,
        )
        for index in range(count)
    ]


def params_of(states):
    return [jax.device_get(state.params) for state in states]


@pytest.fixture(scope="module")
def apart(objective, init, tmp_path_factory):
    """Return the states of four trainings that ran one after the other, and their folder."""
    folder = tmp_path_factory.mktemp("apart")
    runs = [train(objective, init, [member], SETTINGS, mesh_of(1)) for member in members_in(folder)]
    return [jax.device_get(state) for (state,) in runs], folder


@pytest.fixture(scope="module")
def population(objective, init, tmp_path_factory):
    """Return the states of the four trainings as one program, which traces the objective once, and their folder."""
    folder = tmp_path_factory.mktemp("population")
    once = chex.assert_max_traces(objective.__call__, n=1)
    return [jax.device_get(state) for state in train(once, init, members_in(folder), SETTINGS, mesh_of(1))], folder


def test_members_are_the_trainings_that_they_are_alone(apart, population):
    for index, (alone, member) in enumerate(zip(apart[0], population[0], strict=True)):
        chex.assert_trees_all_close(member, alone, rtol=1e-3, atol=1e-4)
        records = [read_metrics(folder / str(index) / "metrics.jsonl") for folder in (apart[1], population[1])]
        for one, other in zip(*records, strict=True):
            assert one.keys() == other.keys()
            for key in one.keys() - {"tokens_per_second", "seconds_per_step", "memory_bytes"}:
                np.testing.assert_allclose(other[key], one[key], rtol=1e-3)
    first, second = params_of(population[0])[:2]
    assert np.abs(first["embedding"] - second["embedding"]).max() > 1e-2


def test_devices_train_members_of_their_own(objective, init, apart, tmp_path):
    states = train(objective, init, members_in(tmp_path), SETTINGS, mesh_of(2, 2))
    for alone, member in zip(apart[0], states, strict=True):
        chex.assert_trees_all_close(jax.device_get(member), alone, rtol=1e-3, atol=1e-4)


def test_a_member_goes_on_alone(objective, init, apart, population, tmp_path):
    """A checkpoint does not say how many trainings were one program."""
    shutil.copytree(population[1], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "1" / "checkpoints" / "6")
    (state,) = train(objective, init, [members_in(tmp_path)[1]], SETTINGS, mesh_of(1))
    chex.assert_trees_all_close(jax.device_get(state), apart[0][1], rtol=1e-3, atol=1e-4)


def stop_at(step):
    """Return streams, of which the one of the first member sends this process a signal before a step."""

    def batches(index):
        def stream_of(first):
            for number, batch in enumerate(stream(first), first):
                if index == 0 and number == step:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

        return stream_of

    return batches


def test_resumption_after_a_signal_is_bitwise_equal(objective, init, population, tmp_path):
    with pytest.raises(Interrupted):
        train(objective, init, members_in(tmp_path, batches=stop_at(1)), SETTINGS, mesh_of(1))
    steps = [Checkpoints(tmp_path / str(index) / "checkpoints", read_only=True).steps() for index in range(4)]
    assert steps == [[2]] * 4
    states = train(objective, init, members_in(tmp_path), SETTINGS, mesh_of(1))
    chex.assert_trees_all_equal([jax.device_get(state) for state in states], population[0])
    records = read_metrics(tmp_path / "3" / "metrics.jsonl")
    assert [record["step"] for record in records if "loss" in record] == [2, 4, 6]


def test_members_wait_for_the_one_that_is_behind(objective, init, population, tmp_path):
    """A command that was killed while it saved leaves checkpoints of some members."""
    shutil.copytree(population[1], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "2" / "checkpoints" / "6")
    states = train(objective, init, members_in(tmp_path), SETTINGS, mesh_of(1))
    chex.assert_trees_all_equal([jax.device_get(state) for state in states], population[0])


def test_members_that_are_far_apart_lose_nothing(objective, init, apart, population, tmp_path):
    """One begins again, alone, and the others have no step to do."""
    shutil.copytree(population[1], tmp_path, dirs_exist_ok=True)
    for number in ("3", "6"):
        shutil.rmtree(tmp_path / "2" / "checkpoints" / number)
    begun = {index: [] for index in range(4)}
    batches = lambda index: lambda step: begun[index].append(step - 100 * index) or stream(step)  # noqa: E731
    states = [
        jax.device_get(each) for each in train(objective, init, members_in(tmp_path, 4, batches), SETTINGS, mesh_of(1))
    ]
    assert begun == {0: [6], 1: [6], 2: [0], 3: [6]}
    chex.assert_trees_all_close(states[2], apart[0][2], rtol=1e-3, atol=1e-4)
    chex.assert_trees_all_equal([states[0], states[3]], [population[0][0], population[0][3]])


def test_micro_batches_and_weights_to_start_from(objective, init, params, tmp_path):
    """The check of keys does not know the transposition of several."""
    settings = Settings(steps=2, batch=BATCH, accumulate=2, log_every=2, evaluate_every=2, checkpoint_every=2)

    def members(folder):
        starts = [lambda scale=scale: jax.tree.map(lambda leaf: scale * leaf, params) for scale in (1.0, 0.5)]
        return [replace(each, start=start) for each, start in zip(members_in(folder, 2), starts, strict=True)]

    with jax.debug_key_reuse(False):
        together = train(objective, init, members(tmp_path / "together"), settings, mesh_of(1))
        for member, state in zip(members(tmp_path / "apart"), together, strict=True):
            (alone,) = train(objective, init, [member], settings, mesh_of(1))
            chex.assert_trees_all_close(jax.device_get(state), jax.device_get(alone), rtol=1e-3, atol=1e-4)
    first, second = params_of(together)
    assert np.abs(first["embedding"] - second["embedding"]).max() > 0.1


def test_where_one_diverges_the_others_are_saved(poisoned, init, tmp_path):
    def batches(index):
        def stream_of(first):
            for number, batch in enumerate(stream(first), first - 100 * index):
                batch["weights"][1, 0] += index == 1 and number == 3
                yield batch

        return stream_of

    with pytest.raises(Diverged, match=r"step 4: .*loss = nan") as error:
        train(poisoned, init, members_in(tmp_path, 3, batches), SETTINGS, mesh_of(1))
    assert error.value.directory == tmp_path / "1"
    steps = [Checkpoints(tmp_path / str(index) / "checkpoints", read_only=True).steps() for index in range(3)]
    assert steps == [[3, 4], [3], [3, 4]]


def test_logits_are_computed_where_a_member_reads_them():
    """What is a conditional in one training is one in several, and no choice between results of both branches."""
    net = DiT(vocab_size=MASK + 1, hidden=16, blocks=1, heads=2, cond_dim=8)
    features = lambda params, noisy, time=None, cond=None, memory=None, *, keys=None: net.apply(  # noqa: E731
        {"params": params}, noisy, method="head_input"
    )
    head = lambda params, x: net.apply({"params": params}, x, method="logits")  # noqa: E731
    objective = Nelbo(SplitDenoiser(features, head, 4), MaskedDiffusion(MASK, LogLinear()))
    params = net.init(jax.random.key(0), jnp.zeros((1, 8), jnp.int32))["params"]

    def loss(params, batch, key):
        return objective(params, batch, draws(key, "train", 0, BATCH))[0]

    stack = lambda tree: jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), tree)  # noqa: E731
    inputs = stack((params, batch_at(0), jax.random.key(0)))
    mapped = (jax.vmap(jax.grad(loss), axis_name=name) for name in (MEMBERS, "other"))
    members, others = (str(jax.make_jaxpr(each)(*inputs)).count("cond[") for each in mapped)
    assert members > 0 == others
