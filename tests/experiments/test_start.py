"""Rows that start from rows or from a checkpoint: plans, weights, and whole tables."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import scmdm_text
from diffusion.train.mesh import make_mesh
from diffusion.train.weights import load_weights, save_weights
from experiments import families, run
from experiments.convert import command as convert
from experiments.plan import plan, resolve
from tests.checks import refused
from tests.experiments.conftest import results_of, words_of
from tests.experiments.weight_files import HIDDEN, mdlm_file
from tests.small_configs import small_config
from tests.table_files import table_file
from tests.weights import randomized

DEBUG = "--config=configs/scmdm_text.py:debug"
BASE, FULL = "MDLM", "SCMDM, lambda 1"


@pytest.fixture
def config(fields):
    return resolve(scmdm_text.get_config("debug"), fields, 0)


def take_rows(config, *names):
    return [row for row in scmdm_text.rows(config) if row["name"] in names]


def test_base_is_trained_once_per_seed_for_all_rows_that_start_from_it():
    config = scmdm_text.get_config("debug")
    config.seeds = (0, 1)
    jobs = plan(list(scmdm_text.rows(config)), config)
    trainings = {job.id: job for job in jobs if job.verb == "train" and not job.config["model"]["causal"]}
    bases = {job.id for job in trainings.values() if not job.needs}
    assert len(bases) == 2 and len(trainings) == 12
    positions = {job.id: index for index, job in enumerate(jobs)}
    for job in trainings.values():
        for need in job.needs.values():
            assert need in bases and positions[need] < positions[job.id]
            assert trainings[need].seed == job.seed and trainings[need].config["memory"]["adapter"] == "none"
    for job in jobs:
        if job.verb != "train" and job.config["start"]:
            assert trainings[job.needs["weights"]].needs and trainings[job.needs["weights"]].seed == job.seed
    # Ids of all later trainings depend on the training of the base.
    config.train.steps = 9
    assert not trainings.keys() & {job.id for job in plan(list(scmdm_text.rows(config)), config) if job.verb == "train"}


def test_checkpoint_replaces_the_base():
    """The base is measured with the checkpoint and other rows start from it; the judge is another network."""
    config = scmdm_text.get_config("debug")
    config.checkpoint = "/some/weights"
    jobs = plan(list(scmdm_text.rows(config)), config)
    trainings = {job.id: job for job in jobs if job.verb == "train"}
    assert not any(job.needs for job in trainings.values())
    assert {job.config["start"] for job in trainings.values() if job.config["checkpoint"]} == {BASE}
    judge = [job for job in trainings.values() if job.config["model"]["causal"]]
    assert [job.config["checkpoint"] for job in judge] == [""]
    for job in jobs:
        trained = [need for need in job.needs.values() if need not in {each.id for each in judge}]
        if job.verb != "train" and job.row != "Held-out text":
            assert bool(trained) == bool(job.config["start"]), job.row
    # Measurements of the checkpoint and of a model trained from it differ, even with equal configs.
    continued = [
        dict(row, overrides=row["overrides"] | {"train.steps": 6}) for row in take_rows(config, "MDLM, same tokens")
    ]
    both = plan([*take_rows(config, BASE), *continued], config)
    assert len({job.id for job in both if job.verb == "evaluate"}) == 2


def test_rows_can_start_from_rows_that_start_from_rows():
    config = scmdm_text.get_config("debug")
    rows = take_rows(config, BASE, FULL)
    last = dict(name="last", overrides=rows[1]["overrides"] | {"start": FULL, "train.steps": 7}, verbs=("evaluate",))
    first, second, third, measured = plan([last], config, [*rows, last])
    assert [job.verb for job in (first, second, third)] == ["train"] * 3
    assert (first.needs, second.needs, third.needs, measured.needs) == (
        {},
        {"start": first.id},
        {"start": second.id},
        {"weights": third.id},
    )


def network(**overrides):
    return families.system(small_config(data__length=8, **overrides), 13)


def bits(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf).tobytes(), tree)


def test_adapter_is_added_to_weights_and_removed(tmp_path):
    """Other weights remain bitwise equal; a new adapter is D x D zeros, and an existing one is loaded."""

    def saved(name, params, init, added=()):
        save_weights(tmp_path / name, params)
        return load_weights(tmp_path / name, init, make_mesh(), added=added)

    base, conditioned = network().init, network(memory__adapter="linear").init
    wide = network(memory__adapter="linear", model__hidden=32).init
    old, added = randomized(base), ("adapter",)
    grown = saved("base", old, conditioned, added)
    adapter = grown["adapter"]["linear"]["kernel"]
    assert list(grown["adapter"]) == ["linear"] and adapter.shape == (16, 16) and not np.any(adapter)
    assert jax.tree.structure(grown) == jax.tree.structure(jax.eval_shape(conditioned, jax.random.key(0)))
    rest = {name: part for name, part in grown.items() if name != "adapter"}
    assert bits(rest) == bits(old) == bits(saved("rest", rest, base))
    trained = grown | {"adapter": {"linear": {"kernel": np.ones((16, 16), np.float32)}}}
    assert bits(saved("conditioned", trained, conditioned, added)) == bits(trained)
    save_weights(tmp_path / "missing", {name: part for name, part in old.items() if name != "head"})
    for folder, init, new, message in (
        ("base", conditioned, (), r"adapter/linear/kernel is absent"),
        ("base", wide, added, r"has shape .* where the config wants"),
        ("conditioned", wide, added, r"has shape .* where the config wants"),
        ("missing", conditioned, added, r"head/.* is absent"),
        ("none", conditioned, added, r"holds no weights"),
    ):
        with refused(message):
            load_weights(tmp_path / folder, init, make_mesh(), added=new)


def test_small_table_from_its_base_to_its_rows(config, text, fields, capsys):
    """The table has base, post-training, three bounds and two samplers; a second run computes no job."""
    names = (BASE, FULL, f"{FULL}, 4 steps", f"{FULL}, null memory, 4 steps")
    table = table_file(
        TABLE=scmdm_text.TABLE | {"plots": ()},
        # Fields of a row have priority, so the number of steps is set here.
        rows=lambda config: [
            dict(row, overrides=row["overrides"] | {"train.steps": fields["train.steps"]})
            for row in take_rows(config, *names)
        ],
    )
    workdir = text / "runs"
    run.run_table(table, config, workdir, publish=False)
    printed = capsys.readouterr()
    assert printed.err.count(": running (") == 6 and printed.err.count("] train ") == 2
    by_name = results_of(workdir)
    scores = by_name["evaluate", FULL]["metrics"]
    passes = ("bound_continuous", "bound_continuous_passes_2", "bound_continuous_passes_3")
    assert all(np.isfinite(scores[f"{name}/nats_per_token"]) for name in passes)
    assert by_name["evaluate", FULL]["estimator"] == passes[1]
    assert scores["nats_per_token"] == scores["bound_continuous_passes_2/nats_per_token"]
    assert by_name["evaluate", BASE]["estimator"] == passes[0]
    # Training continues for four steps from the averaged weights of the base.
    trained = by_name["train", FULL]
    assert trained["metrics"]["parameters"] == by_name["train", BASE]["metrics"]["parameters"] + 32 * 32
    assert scores["nats_per_token"] < by_name["evaluate", BASE]["metrics"]["nats_per_token"]
    for name in names[2:]:
        assert by_name["sample", name]["metrics"]["evaluations"] == 5

    run.run_table(table, config, workdir, publish=False)
    assert capsys.readouterr().err.count(": done before (") == 6
    weights = workdir / "jobs" / trained["job"] / "weights"

    # With a checkpoint a row that starts from another one is evaluated without training.
    folder = text / "with_checkpoint"
    with_checkpoint = resolve(config, {"checkpoint": str(weights)}, 0)
    run.run_row(table, with_checkpoint, "evaluate", FULL, {"checkpoint": str(weights)}, folder)
    (result,) = results_of(folder).values()
    assert result["verb"] == "evaluate"
    assert result["metrics"]["nats_per_token"] == pytest.approx(scores["nats_per_token"], rel=1e-6)


def test_training_starts_from_a_public_checkpoint(succeed, fields, tmp_path):
    """A converted checkpoint replaces the base of a row, and its weights are bitwise unchanged at the start."""
    mdlm_file(tmp_path / "model.safetensors", vocabulary=258, scale=0.1)
    convert.run("mdlm", str(tmp_path / "model.safetensors"), tmp_path / "public")
    weights = tmp_path / "public" / "weights"
    found = json.loads((tmp_path / "public" / "config.json").read_text())["overrides"]
    fields = fields | {name: value for name, value in found.items() if not name.startswith("data.")}
    fields |= {"train.steps": 2, "checkpoint": str(weights)}
    succeed("train", DEBUG, f"--row={FULL}", *words_of(fields))
    (folder,) = (tmp_path / "runs" / "jobs").iterdir()
    assert results_of(tmp_path / "runs")["train", FULL]["step"] == 2

    # Before the first step the outputs are bitwise those of the public network, with any self-conditioning input.
    config = resolve(scmdm_text.get_config("debug"), fields, 0)
    changed = [resolve(config, {"memory.adapter": adapter}, 0) for adapter in ("linear", "none")]
    conditioned, base = (families.system(each, 257) for each in changed)
    grown = load_weights(weights, conditioned.init, make_mesh(), added=("adapter",))
    old = load_weights(weights, base.init, make_mesh())
    state = jax.random.randint(jax.random.key(0), (2, 32), 0, 258)
    memory, time = jax.random.normal(jax.random.key(1), (2, 32, HIDDEN)), jnp.zeros(2)
    expected = jax.jit(base.denoiser)(old, state, time)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_array_equal(jax.jit(conditioned.denoiser)(grown, state, time, None, memory), expected)
    after = load_weights(folder / "weights", conditioned.init, make_mesh())
    change = np.abs(after["embedding"] - grown["embedding"]).max()
    assert 0 < change < 0.1 and np.any(after["adapter"]["linear"]["kernel"])
