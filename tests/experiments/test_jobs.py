"""Plans: ids of jobs, which depend exactly on what decides their results, and the order of jobs."""

import copy
import json

import pytest

from configs import lidar_mixture, lidar_shapes, quickstart
from configs.base import defaults
from configs.recipes.small import tiny
from experiments import identity, run
from experiments.identity import digest, to_json
from experiments.plan import Job, atomic_write, find_row, judge_jobs, plan, read_plan, resolve, train_jobs, write_plan

CAUSAL = {"objective.name": "autoregressive", "model.causal": True, "model.adaln": False}
ROWS = [
    dict(name="Text", overrides={"sample.policy": "data"}, verbs=("sample",)),
    dict(name="AR", overrides=CAUSAL, verbs=("evaluate", "sample")),
    dict(name="MDLM, 4 steps", overrides={"sample.steps": 4}, verbs=("evaluate", "sample")),
    dict(name="MDLM, 8 steps", overrides={"sample.steps": 8}, verbs=("sample",)),
]


@pytest.fixture
def config():
    config = tiny(defaults("test", "debug"))
    config.judge.update(name="row", row="AR")
    return config


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


def test_plan_is_read_as_written(config, tmp_path):
    jobs = plan(ROWS, config)
    path = tmp_path / "plan.jsonl"
    path.write_text(write_plan(jobs))
    assert read_plan(path) == jobs


UNNAMED = '{"id": "x", "verb": "train", "row": "x", "seed": 0, "needs": ["y"], "config": {}}'


@pytest.mark.parametrize("line", [UNNAMED, "not json", "[1, 2]", "7", '{"id": "x"}', '{"id": 1, "other": 2}', "null"])
def test_line_that_is_not_a_job_raises(config, line, tmp_path):
    path = tmp_path / "plan.jsonl"
    path.write_text(write_plan(plan(ROWS, config)[:1]) + line + "\n")
    with pytest.raises(ValueError, match=r"jobs: line 2 of .*plan\.jsonl is not a job; .*launch\.py plan") as caught:
        read_plan(path)
    assert "\n" not in str(caught.value)


def test_missing_plan_raises(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(ValueError, match=r"jobs: .* is not a file; write it with `launch\.py plan"):
            read_plan(path)


def test_job_is_done_when_its_result_is_complete(tmp_path):
    job = Job("train-x-1", "train", "AR", 0, {}, {})
    assert job.folder(tmp_path) == tmp_path / "jobs" / "train-x-1" and not job.done(tmp_path)
    atomic_write(job.folder(tmp_path) / "result.json", '{"row": "AR"}')
    assert job.done(tmp_path)
    assert [path.name for path in job.folder(tmp_path).iterdir()] == ["result.json"], "there is no partial file"
    assert run.run_jobs([job], tmp_path) == [{"row": "AR"}], "a completed job is read, not run"


def test_a_result_of_another_commit_is_named(tmp_path, capsys):
    job = Job("train-x-1", "train", "AR", 0, {}, {})
    atomic_write(job.folder(tmp_path) / "result.json", '{"commit": "0123456789ab"}')
    run.run_jobs([job], tmp_path)
    assert "done before (train-x-1, at commit 0123456789ab, not " in capsys.readouterr().err


def test_job_without_the_jobs_that_it_needs_raises_and_writes_no_file(tmp_path):
    job = Job("sample-y-2", "sample", "AR", 0, {"weights": "train-x-1"}, {})
    with pytest.raises(ValueError, match=r"sample-y-2 needs train-x-1, which is not done; run that job first"):
        run.check_needs(job, tmp_path)
    assert not list(tmp_path.iterdir())


def test_default_row_of_a_verb_is_the_first_with_a_network():
    """A table may begin with exact models or held-out data, which have no training."""
    config = lidar_shapes.get_config("debug")
    rows = list(lidar_shapes.rows(config))
    assert rows[0]["name"] == "exact: base" and run.first_row(rows, config, "sample") == "exact: base"
    assert run.first_row(rows, config, "train") == run.first_row(rows, config, "evaluate") == "Reward model"
    exact = lidar_mixture.get_config("debug")
    with pytest.raises(ValueError, match="row: no row of this table has something to train"):
        run.first_row(list(lidar_mixture.rows(exact)), exact, "train")


@pytest.mark.parametrize(
    ("table", "name", "verb", "message"),
    [
        (lidar_shapes, "exact: base", "train", r"exact model \(model.net=picture_oracle\) .* 'Reward model', 'base'"),
        (lidar_shapes, "exact: LiDAR 8", "evaluate", "'exact: LiDAR 8' is an exact model .* nothing to evaluate"),
        (lidar_mixture, "none, DDPM", "train", "nothing to train; no row here has a network; use sample"),
        (
            quickstart,
            "Held-out text",
            "train",
            r"held-out data \(sample.policy=data\) with nothing to train; .* 'MDLM'",
        ),
        (quickstart, "Held-out text", "evaluate", "nothing to evaluate"),
    ],
)
def test_training_of_rows_without_a_network_raises(table, name, verb, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        run.run_row(table, table.get_config("debug"), verb, name, {}, tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
