"""Plans: ids of jobs, which depend exactly on what decides their results, and the order of jobs."""

import copy

import pytest

from configs import quickstart
from experiments import identity, run
from experiments.identity import digest
from experiments.plan import find_row, judge_jobs, plan, resolve, train_jobs
from tests.checks import refused
from tests.small_configs import CAUSAL, ROWS, judged_config


@pytest.fixture
def config():
    return judged_config()


def ids(config, rows=ROWS):
    """Return job ids by (verb, row, seed)."""
    return {(job.verb, job.row, job.seed): job.id for job in plan(rows, config)}


def test_ids_depend_neither_on_the_process_nor_on_the_order_of_fields():
    assert digest({"b": [1, 2.5, None], "a": {"x": True, "y": "text"}}) == "fb168eb033"
    assert digest({"a": {"y": "text", "x": True}, "b": [1, 2.5, None]}) == "fb168eb033"
    assert digest({"a": 1}) != digest({"a": 1.5}) != digest({"a": "1.5"})


def test_rows_share_a_common_training(config):
    jobs = plan(list(reversed(ROWS)), config)
    assert [job.verb for job in jobs] == ["train"] * 2 + ["evaluate"] * 2 + ["sample"] * 4
    jobs = plan(ROWS, config)
    assert {job.row for job in jobs if job.verb == "train"} == {"AR", "MDLM, 4 steps"}
    needs = {(job.verb, job.row): job.needs for job in jobs}
    shared = ids(config)["train", "MDLM, 4 steps", 0]
    judge = ids(config)["train", "AR", 0]
    assert needs["evaluate", "MDLM, 4 steps"] == {"weights": shared}
    assert needs["sample", "MDLM, 4 steps"] == needs["sample", "MDLM, 8 steps"] == {"weights": shared, "scorer": judge}
    assert needs["sample", "AR"] == {"weights": judge, "scorer": judge}, "the judge of AR is AR, with one training"
    assert needs["sample", "Text"] == {"scorer": judge}, "held-out text needs only the judge"
    assert len({job.id for job in jobs}) == 8
    # The id of a training depends on the model, not on the table or the row.
    config.table = "other"
    assert ids(config, [dict(name="base", overrides={}, verbs=("evaluate",))])["train", "base", 0] == shared


def test_each_seed_has_a_training_and_all_seeds_have_the_judge_of_the_first(config):
    config.seeds = (3, 4)
    jobs = plan(ROWS, config)
    trainings = {(job.row, job.seed): job.id for job in jobs if job.verb == "train"}
    assert len(trainings) == len(set(trainings.values())) == 4
    for job in jobs:
        assert job.config["seed"] == job.seed
        if job.verb == "sample":
            assert job.needs["scorer"] == trainings["AR", 3]
    assert judge_jobs(ROWS, config)[-1].id == trainings["AR", 3]


def test_row_may_have_only_the_first_seeds(config):
    config.seeds = (3, 4, 5)
    rows = [ROWS[1], dict(ROWS[2], seeds=1), dict(ROWS[3], overrides={"sample.steps": 8, "train.steps": 5}, seeds=2)]
    seeds = {}
    for job in plan(rows, config):
        seeds.setdefault((job.verb, job.row), []).append(job.seed)
    assert seeds["train", "AR"] == seeds["evaluate", "AR"] == [3, 4, 5]
    assert seeds["train", "MDLM, 4 steps"] == seeds["evaluate", "MDLM, 4 steps"] == [3]
    assert seeds["train", "MDLM, 8 steps"] == seeds["sample", "MDLM, 8 steps"] == [3, 4]


# Fields and changed values by the verbs whose ids must change.
CHANGES = {
    ("train", "evaluate", "sample"): {
        "data.length": 64,
        "data.path": "/other",
        "model.time_conditioning": True,
        "process.schedule": "cosine",
        "objective.minimum_time": 1e-4,
        "optimizer.learning_rate": 1e-5,
        "train.steps": 7,
        "train.ema": 0.5,
    },
    ("evaluate",): {"evaluate.draws": 9, "evaluate.split": "validation"},
    ("sample",): {"sample.temperature": 0.5, "sample.prompt": "x", "quality.parse": True, "judge.name": "none"},
    (): {
        "train.log_every": 1,
        "train.checkpoint_every": 5,
        "train.keep": 9,
        "data.cache_dir": "/elsewhere",
        "mesh.fsdp": 8,
        "table": "another",
        "variant": "local",
    },
}


@pytest.mark.parametrize("changed", CHANGES, ids=str)
def test_id_changes_exactly_with_what_decides_the_result(config, changed):
    before = ids(config)
    for field, value in CHANGES[changed].items():
        after = ids(resolve(config, {field: value}, 0))
        assert {key for key in before if before[key] != after[key]} == {key for key in before if key[0] in changed}, (
            field
        )


def test_a_new_field_with_a_default_renames_no_job(config, monkeypatch):
    before, fields = ids(config), copy.deepcopy(identity.default_fields())
    for section in ("model", "sample", "evaluate"):
        fields[section]["new"] = {"inner": 1}
        config[section].new = {"inner": 1}
    monkeypatch.setattr(identity, "default_fields", lambda: fields)
    assert ids(config) == before
    config.sample.new.inner = 2
    after = ids(config)
    assert {key[0] for key in before if after[key] != before[key]} == {"sample"}


def test_differences_are_nested_as_the_fields_are():
    default = {"a": 1, "b": {"c": [1, 2], "d": {}}}
    assert identity.differences({"a": 1, "b": {"c": [1, 2]}}, default) == {}, "a missing field has its default"
    assert identity.differences({"b": {"c": [1], "d": {}}, "e": {}}, default) == {"b": {"c": [1]}, "e": {}}
    assert identity.differences({"b": {"d": {"x": {"y": 0}}}}, default) == {"b": {"d": {"x": {"y": 0}}}}


def test_sample_id_depends_on_the_training_of_the_judge(config):
    rows = [dict(row, overrides=row["overrides"] | {"train.steps": 9}) if row["name"] == "AR" else row for row in ROWS]
    before, after = ids(config), ids(config, rows)
    assert before["sample", "MDLM, 4 steps", 0] != after["sample", "MDLM, 4 steps", 0]
    assert before["evaluate", "MDLM, 4 steps", 0] == after["evaluate", "MDLM, 4 steps", 0]


def test_checkpoint_needs_no_training(config):
    config.judge.name = "none"
    config.checkpoint = "/some/weights"
    jobs = plan(ROWS, config)
    assert {job.verb for job in jobs} == {"evaluate", "sample"} and not any(job.needs for job in jobs)
    config.checkpoint = "/other/weights"
    assert not {job.id for job in jobs} & {job.id for job in plan(ROWS, config)}


def test_ids_are_readable_file_names(config):
    row = dict(name="MDLM (ours), T=4 / é " + "x" * 80, overrides={}, verbs=("sample",))
    job = next(job for job in plan([row, *ROWS], config) if job.row == row["name"] and job.verb == "sample")
    assert job.id.startswith("sample-mdlm-ours-t-4-x")
    assert set(job.id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") and len(job.id) < 64
    assert train_jobs(ROWS, config, "AR", resolve(config, CAUSAL, 0))[-1].id.startswith(
        "train-autoregressive-python-stdlib-"
    )


def test_resolve_sets_row_and_seed_in_a_copy(config):
    config.sample.steps = 5
    resolved = resolve(config, {"sample.steps": 9, "checkpoint": "/w"}, 7)
    assert (resolved.sample.steps, resolved.checkpoint, resolved.seed) == (9, "/w", 7)
    assert (config.sample.steps, config.checkpoint, config.seed) == (5, "", 0)
    for field in ("sample.stepz", "smaple.steps", "sample.steps.more"):
        with refused(f"{field}: the table's row sets a field"):
            resolve(config, {field: 1}, 0)


@pytest.mark.parametrize(("overrides", "steps"), [({}, 8), ({"sample.steps": 3}, 3)])
def test_command_line_replaces_the_settings_of_a_row(overrides, steps, monkeypatch, tmp_path):
    """The plan of one row includes the training of its judge."""
    planned = []

    def record(jobs, workdir, profile=0):
        planned.extend(jobs)
        return [{"verb": job.verb, "row": job.row, "job": job.id} for job in jobs]

    monkeypatch.setattr(run, "run_jobs", record)
    monkeypatch.setattr(run.table, "describe", lambda row, workdir: row["row"])
    config = resolve(quickstart.get_config("local"), overrides, 0)
    run.run_row(quickstart, config, "sample", "MDLM, ancestral, 8 steps", overrides, tmp_path)
    assert [job.verb for job in planned] == ["train", "train", "sample"]
    assert planned[-1].config["sample"]["steps"] == steps
    assert planned[-1].needs["scorer"] == next(job.id for job in planned if job.config["model"]["causal"])


def test_unknown_rows_list_the_known_ones(config):
    with pytest.raises(ValueError, match="row: unknown 'GPT'; known: 'Text', 'AR', 'MDLM, 4 steps'"):
        find_row(ROWS, "GPT")
    config.judge.row = "GPT"
    with pytest.raises(ValueError, match="unknown 'GPT'"):
        plan(ROWS, config)
