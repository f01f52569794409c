"""`plan --migrate`: the jobs of a work directory of identity 1 get their new ids."""

import importlib
import json

import pytest

from experiments import contents, migrate
from experiments.layout import MARK
from experiments.plan import plan
from tests.experiments.conftest import one_line

# Ids of identity 1 by table, verb and row: trainings that start from others and learn from others, and their uses.
OLD = {
    "composition": {
        ("train", "AR"): "train-autoregressive-python-stdlib-92b4c7df98",
        ("evaluate", "AR"): "evaluate-ar-37ee9888ca",
        ("train", "MDLM"): "train-nelbo-python-stdlib-c350d5ff6a",
        ("train", "SCMDM"): "train-nelbo-python-stdlib-e45caa001b",
        ("evaluate", "SCMDM"): "evaluate-scmdm-4b91790895",
        ("train", "SCMDM, G-Star-loop, 4"): "train-errors-python-stdlib-ff5788d6b1",
        ("sample", "SCMDM, G-Star-loop, 4"): "sample-scmdm-g-star-loop-4-e880b59f37",
        ("sample", "Held-out text"): "sample-held-out-text-8a2420780b",
    },
    "gstar_text": {
        ("train", "AR"): "train-autoregressive-python-stdlib-92b4c7df98",
        ("train", "MDLM"): "train-nelbo-python-stdlib-c350d5ff6a",
        ("train", "G-Star-loop, likelihood, 4 steps"): "train-errors-python-stdlib-eac1300fa8",
        ("sample", "G-Star-loop, likelihood, 4 steps"): "sample-g-star-loop-likelihood-4-steps-551572da80",
    },
}
AR = OLD["composition"]["train", "AR"]


TEXT = OLD["composition"]["sample", "Held-out text"]


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """Return a work directory, with a cache of hashes of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "runs"


@pytest.fixture
def moved(succeed, workdir):
    """Return `moved()`, which migrates the work directory and returns the printed lines."""
    return lambda: succeed("plan", f"--migrate={workdir}")[0].splitlines()


def old_fields(config, known):
    """Return the fields of a config that identity 1 had."""
    return {
        key: old_fields(value, known[key]) if isinstance(value, dict) and known[key] else value
        for key, value in config.items()
        if key in known
    }


def make(workdir, table="composition"):
    """Write the folders of an old work directory; return {old id: new id}."""
    module = importlib.import_module(f"configs.{table}")
    config = module.get_config("debug")
    jobs = {(job.verb, job.row): job for job in plan(list(module.rows(config)), config)}
    for key, old in OLD[table].items():
        folder = workdir / "jobs" / old
        (folder / "weights").mkdir(parents=True)
        (folder / "weights" / "part").write_text(old)
        (folder / "config.json").write_text(json.dumps(old_fields(jobs[key].config, migrate.old_defaults())))
        result = {"job": old, "row": key[1], "metrics": {"loss": 1.5, "evaluator": f"AR trained here ({AR})"}}
        (folder / "result.json").write_text(json.dumps(result))
    (workdir / "tables" / "some").mkdir(parents=True)
    (workdir / "tables" / "some" / "rows.jsonl").write_text(json.dumps({"job": AR}) + "\n")
    (workdir / "tables" / "bytes").mkdir()
    (workdir / "tables" / "bytes" / "rows.jsonl").write_bytes(b"\xff")
    (workdir / "README.md").write_text("of an earlier version")
    return {old: jobs[key].id for key, old in OLD[table].items()}


def tree(workdir):
    """Return the content of every file of the jobs."""
    return {
        str(path.relative_to(workdir)): path.read_text() for path in (workdir / "jobs").rglob("*") if path.is_file()
    }


def change_config(folder, change):
    """Change a stored config, and return its folder with the old id of the new config."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder.rename(folder.with_name(next(migrate.training_ids(migrate.read(folder), [])).old)).name


@pytest.mark.parametrize("table", OLD)
def test_every_folder_and_every_reference_has_the_new_id(table, moved, workdir):
    names = make(workdir, table)
    assert sorted(moved()) == sorted(f"{old} -> {new}" for old, new in names.items())
    assert {folder.name for folder in (workdir / "jobs").iterdir()} == set(names.values())
    for old, new in names.items():
        folder = workdir / "jobs" / new
        assert (folder / "weights" / "part").read_text() == old, "other files are moved as they are"
        result = json.loads((folder / "result.json").read_text())
        metrics = {"loss": 1.5, "evaluator": f"AR trained here ({names[AR]})"}
        assert (result["job"], result["metrics"]) == (new, metrics)
    assert json.loads((workdir / "tables" / "some" / "rows.jsonl").read_text()) == {"job": names[AR]}
    assert MARK in (workdir / "README.md").read_text()
    before = tree(workdir)
    assert sorted(moved()) == sorted(f"kept {new}" for new in names.values())
    assert tree(workdir) == before
    # An interrupted renaming goes on.
    for old in [old for old in names if "mdlm" not in old][::2]:
        (workdir / "jobs" / names[old]).rename(workdir / "jobs" / old)
    moved()
    assert tree(workdir) == before


def test_no_folder_is_overwritten(moved, workdir):
    names = make(workdir)
    (workdir / "jobs" / names[AR]).mkdir()
    (workdir / "jobs" / names[AR] / "config.json").write_text((workdir / "jobs" / AR / "config.json").read_text())
    assert f"left {AR}: {names[AR]} exists" in moved()
    assert (workdir / "jobs" / AR / "weights").is_dir() and not (workdir / "jobs" / names[AR] / "weights").exists()


@pytest.mark.parametrize(("section", "change"), [("sample", {"steps": 3}), ("data", {"length": 16})])
def test_a_job_that_is_not_recognized_is_left(section, change, moved, workdir):
    make(workdir)
    file = workdir / "jobs" / TEXT / "config.json"
    config = json.loads(file.read_text())
    config[section] |= change
    file.write_text(json.dumps(config))
    (line,) = [line for line in moved() if line.startswith("left")]
    assert line.startswith(f"left {TEXT}: this is not the hash of its config")


def test_a_job_whose_scorer_is_gone_is_left(moved, workdir, tmp_path):
    make(workdir)
    (workdir / "jobs" / AR).rename(tmp_path / "elsewhere")
    left = {line.split()[1].rstrip(":") for line in moved() if line.startswith("left")}
    assert left == {TEXT, "sample-scmdm-g-star-loop-4-e880b59f37"}


def test_deleted_fields_count_where_they_said_something(moved, workdir, monkeypatch):
    """The defaults of identity 1 are known for fields that were deleted since."""
    before, names = migrate.old_defaults(), make(workdir)
    monkeypatch.setattr(migrate, "old_defaults", lambda: before | {"model": before["model"] | {"gone": 3}})
    old = change_config(workdir / "jobs" / AR, lambda config: config["model"].update(gone=3))
    mdlm = workdir / "jobs" / OLD["composition"]["train", "MDLM"]
    changed = change_config(mdlm, lambda config: config["model"].update(gone=4))
    lines = moved()
    assert f"{old} -> {names[AR]}" in lines
    assert any(line.startswith(f"left {changed}: model.gone: no such field") for line in lines)


def test_results_carry_the_hashes_of_files_that_are_here(moved, workdir, tmp_path):
    data, absent = tmp_path / "texts", tmp_path / "no"
    make(workdir)
    data.mkdir()
    (data / "one.py").write_text("one = 1\n")
    for row, path in (("AR", data), ("MDLM", absent)):
        folder = workdir / "jobs" / OLD["composition"]["train", row]
        change_config(folder, lambda config, path=path: config["data"].update(path=str(path)))
    lines = moved()
    rows = [json.loads(path.read_text()) for path in (workdir / "jobs").glob("train-*/result.json")]
    assert [row["contents"] for row in rows if "contents" in row] == [{str(data): contents.content_hash(str(data))}]
    assert sum(line.endswith(f"({absent} is not here: the path counts)") for line in lines) == 1


DAMAGES = {
    "no JSON": lambda folder: (folder / "config.json").write_text("{"),
    "no config": lambda folder: (folder / "config.json").write_text('{"model": 3}'),
    "no file": lambda folder: (folder / "config.json").unlink(),
    "no job": lambda folder: folder.rename(folder.with_name("something-else")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_read_is_refused_in_one_line(damage, cli, workdir):
    make(workdir)
    DAMAGES[damage](workdir / "jobs" / TEXT)
    before = tree(workdir)
    one_line(cli("plan", f"--migrate={workdir}"), "--migrate", "is not a job")
    assert tree(workdir) == before, "nothing is renamed"


def test_a_folder_without_jobs_is_refused(cli, workdir):
    for words in (["plan", f"--migrate={workdir}"], ["run", "--migrate=runs"], ["plan", "--redo=AR"]):
        one_line(cli(*words), words[1].partition("=")[0])


def test_old_work_directories_are_not_run(cli, workdir):
    make(workdir)
    one_line(cli("run", "--config=configs/composition.py:debug"), "plan --migrate=")
