"""Plans: ids of jobs, which depend exactly on what decides their results, and the order of jobs."""

import copy
import json

import pytest

from configs import quickstart
from experiments import identity, run
from experiments.identity import digest, to_json
from experiments.plan import find_row, judge_jobs, plan, resolve, train_jobs
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


def test_tuples_and_lists_are_the_same_config(config):
    config.seeds = (0, 1)
    assert to_json(config)["seeds"] == [0, 1]
    assert json.loads(json.dumps(to_json(config))) == to_json(config)


def test_rows_share_a_common_training(config):
    jobs = plan(ROWS, config)
    trainings = [job for job in jobs if job.verb == "train"]
    assert len(trainings) == 2 and {job.row for job in trainings} == {"AR", "MDLM, 4 steps"}
    needs = {(job.verb, job.row): job.needs for job in jobs}
    shared = ids(config)["train", "MDLM, 4 steps", 0]
    judge = ids(config)["train", "AR", 0]
    assert needs["evaluate", "MDLM, 4 steps"] == {"weights": shared}
    assert needs["sample", "MDLM, 4 steps"] == needs["sample", "MDLM, 8 steps"] == {"weights": shared, "scorer": judge}
    assert needs["sample", "AR"] == {"weights": judge, "scorer": judge}, "the judge of AR is AR, with one training"
    assert needs["sample", "Text"] == {"scorer": judge}, "held-out text needs only the judge"
    assert len({job.id for job in jobs}) == len(jobs) == 2 + 2 + 4


def test_every_job_follows_the_jobs_that_it_needs_and_training_is_first(config):
    config.seeds = (0, 1)
    jobs = plan(list(reversed(ROWS)), config)
    assert [job.verb for job in jobs] == sorted((job.verb for job in jobs), key=["train", "evaluate", "sample"].index)
    done = set()
    for job in jobs:
        assert set(job.needs.values()) <= done
        done.add(job.id)


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


# Field, changed value, and the verbs whose ids must change.
ALL_VERBS = {"train", "evaluate", "sample"}
CHANGES = [
    ("data.length", 64, ALL_VERBS),
    ("data.tokenizer", "characters", ALL_VERBS),
    ("data.path", "/other", ALL_VERBS),
    ("model.hidden", 64, ALL_VERBS),
    ("model.time_conditioning", True, ALL_VERBS),
    ("process.schedule", "cosine", ALL_VERBS),
    ("objective.minimum_time", 1e-4, ALL_VERBS),
    ("optimizer.learning_rate", 1e-5, ALL_VERBS),
    ("train.steps", 7, ALL_VERBS),
    ("train.batch", 16, ALL_VERBS),
    ("train.ema", 0.5, ALL_VERBS),
    ("evaluate.draws", 9, {"evaluate"}),
    ("evaluate.split", "validation", {"evaluate"}),
    ("sample.temperature", 0.5, {"sample"}),
    ("sample.precision", "mdlm_float32", {"sample"}),
    ("sample.count", 12, {"sample"}),
    ("sample.prompt", "import ", {"sample"}),
    ("quality.parse", True, {"sample"}),
    ("judge.name", "none", {"sample"}),
    ("train.log_every", 1, set()),
    ("train.checkpoint_every", 5, set()),
    ("train.keep", 9, set()),
    ("data.cache_dir", "/elsewhere", set()),
    ("mesh.fsdp", 8, set()),
    ("table", "another", set()),
    ("variant", "local", set()),
]


@pytest.mark.parametrize(("field", "value", "changed"), CHANGES, ids=lambda part: part if isinstance(part, str) else "")
def test_id_changes_exactly_with_what_decides_the_result(config, field, value, changed):
    before, after = ids(config), ids(resolve(config, {field: value}, 0))
    assert before.keys() == after.keys()
    for key in before:
        assert (before[key] != after[key]) == (key[0] in changed), key


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


def test_every_id_belongs_to_an_identity(config, monkeypatch):
    before = ids(config)
    monkeypatch.setattr(identity, "IDENTITY", identity.IDENTITY + 1)
    assert not set(before.values()) & set(ids(config).values())


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


def test_tables_share_a_training(config):
    """The id of a training depends on the model, not on the table or the row."""
    other = [dict(name="base", overrides={}, verbs=("evaluate",))]
    config.table = "other"
    assert ids(config, other)["train", "base", 0] == ids(config)["train", "MDLM, 4 steps", 0]


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
    assert resolve(config, {}, 0).sample.steps == 5


@pytest.mark.parametrize("field", ["sample.stepz", "smaple.steps", "stepz", "sample.steps.more"])
def test_row_that_sets_an_unknown_field_raises(config, field):
    with pytest.raises(ValueError, match=f"{field}: the table's row sets a field"):
        resolve(config, {field: 1}, 0)


@pytest.mark.parametrize(("overrides", "steps"), [({}, 8), ({"sample.steps": 3}, 3)])
def test_command_line_replaces_the_settings_of_a_row(overrides, steps, monkeypatch, tmp_path):
    """The plan of one row includes the training of its judge."""
    planned = []

    def record(jobs, workdir):
        planned.extend(jobs)
        return [{"verb": job.verb, "row": job.row, "job": job.id} for job in jobs]

    monkeypatch.setattr(run, "run_jobs", record)
    monkeypatch.setattr(run.table, "describe", lambda row, workdir: row["row"])
    config = quickstart.get_config("local")
    for name, value in overrides.items():
        section, key = name.split(".")
        config[section][key] = value
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
