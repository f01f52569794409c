"""`plan --migrate`: the jobs of a work directory of identity 1 get their new ids."""

import importlib
import json

import pytest

from experiments import contents, migrate
from experiments.layout import MARK
from experiments.plan import plan

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


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def old_fields(config, known):
    """Return the fields of a config that identity 1 had."""
    return {
        key: old_fields(value, known[key]) if isinstance(value, dict) and known[key] else value
        for key, value in config.items()
        if key in known
    }


def make(workdir, table):
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
    (workdir / "README.md").write_text("of an earlier version")
    return {old: jobs[key].id for key, old in OLD[table].items()}


def tree(workdir):
    """Return the content of every file of the jobs."""
    return {
        str(path.relative_to(workdir)): path.read_text() for path in (workdir / "jobs").rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("table", OLD)
def test_every_folder_and_every_reference_has_the_new_id(table, cli, tmp_path):
    workdir = tmp_path / "runs"
    names = make(workdir, table)
    status, out, _ = cli("plan", f"--migrate={workdir}")
    assert status == 0
    assert sorted(out.splitlines()) == sorted(f"{old} -> {new}" for old, new in names.items())
    assert {folder.name for folder in (workdir / "jobs").iterdir()} == set(names.values())
    for old, new in names.items():
        folder = workdir / "jobs" / new
        assert (folder / "weights" / "part").read_text() == old, "other files are moved as they are"
        result = json.loads((folder / "result.json").read_text())
        assert result["job"] == new and result["metrics"] == {
            "loss": 1.5,
            "evaluator": f"AR trained here ({names[AR]})",
        }
    assert json.loads((workdir / "tables" / "some" / "rows.jsonl").read_text()) == {"job": names[AR]}
    assert MARK in (workdir / "README.md").read_text()
    before = tree(workdir)
    status, out, _ = cli("plan", f"--migrate={workdir}")
    assert status == 0 and sorted(out.splitlines()) == sorted(f"kept {new}" for new in names.values())
    assert tree(workdir) == before


def test_an_interrupted_renaming_goes_on(cli, tmp_path):
    workdir = tmp_path / "runs"
    names = make(workdir, "composition")
    cli("plan", f"--migrate={workdir}")
    before = tree(workdir)
    for old in [old for old in names if "mdlm" not in old][::2]:
        (workdir / "jobs" / names[old]).rename(workdir / "jobs" / old)
    cli("plan", f"--migrate={workdir}")
    assert tree(workdir) == before


def test_no_folder_is_overwritten(cli, tmp_path):
    workdir = tmp_path / "runs"
    names = make(workdir, "composition")
    (workdir / "jobs" / names[AR]).mkdir()
    (workdir / "jobs" / names[AR] / "config.json").write_text((workdir / "jobs" / AR / "config.json").read_text())
    status, out, _ = cli("plan", f"--migrate={workdir}")
    assert status == 0 and f"left {AR}: {names[AR]} exists" in out.splitlines()
    assert (workdir / "jobs" / AR / "weights").is_dir() and not (workdir / "jobs" / names[AR] / "weights").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda config: config["sample"].update(steps=3), "this is not the hash of its config"),
        (lambda config: config["data"].update(length=16), "this is not the hash of its config"),
    ],
)
def test_a_job_that_is_not_recognized_is_left(change, reason, cli, tmp_path):
    workdir = tmp_path / "runs"
    names = make(workdir, "composition")
    old = "sample-held-out-text-8a2420780b"
    file = workdir / "jobs" / old / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))
    status, out, _ = cli("plan", f"--migrate={workdir}")
    lines = [line for line in out.splitlines() if line.startswith("left")]
    assert status == 0 and len(lines) == 1 and lines[0].startswith(f"left {old}: {reason}")
    assert len(out.splitlines()) == len(names)


def test_a_job_whose_scorer_is_gone_is_left(cli, tmp_path):
    workdir = tmp_path / "runs"
    make(workdir, "composition")
    (workdir / "jobs" / AR).rename(tmp_path / "elsewhere")
    _, out, _ = cli("plan", f"--migrate={workdir}")
    left = {line.split()[1].rstrip(":") for line in out.splitlines() if line.startswith("left")}
    assert left == {"sample-held-out-text-8a2420780b", "sample-scmdm-g-star-loop-4-e880b59f37"}


def test_deleted_fields_count_where_they_said_something(cli, tmp_path, monkeypatch):
    """The defaults of identity 1 are known for fields that were deleted since."""
    workdir, before = tmp_path / "runs", migrate.old_defaults()
    names = make(workdir, "composition")
    monkeypatch.setattr(migrate, "old_defaults", lambda: before | {"model": before["model"] | {"gone": 3}})
    old = old_id(migrate, workdir / "jobs" / AR, gone=3)
    changed = old_id(migrate, workdir / "jobs" / OLD["composition"]["train", "MDLM"], gone=4)
    _, out, _ = cli("plan", f"--migrate={workdir}")
    assert f"{old} -> {names[AR]}" in out.splitlines()
    assert any(line.startswith(f"left {changed}: model.gone: no such field") for line in out.splitlines())


def old_id(migrate, folder, **fields):
    """Add fields of the model to a stored config, and give its folder the old id of this config."""
    config = json.loads((folder / "config.json").read_text())
    config["model"] |= fields
    (folder / "config.json").write_text(json.dumps(config))
    name = next(migrate.training_ids(migrate.read(folder), [])).old
    folder.rename(folder.with_name(name))
    return name


def test_results_carry_the_hashes_of_files_that_are_here(cli, tmp_path):
    workdir, data = tmp_path / "runs", tmp_path / "texts"
    make(workdir, "composition")
    data.mkdir()
    (data / "one.py").write_text("one = 1\n")
    here, absent = (workdir / "jobs" / OLD["composition"]["train", row] for row in ("AR", "MDLM"))
    for folder, path in ((here, data), (absent, tmp_path / "no")):
        config = json.loads((folder / "config.json").read_text())
        config["data"]["path"] = str(path)
        (folder / "config.json").write_text(json.dumps(config))
        folder.rename(folder.with_name(next(migrate.training_ids(migrate.read(folder), [])).old))
    _, out, _ = cli("plan", f"--migrate={workdir}")
    rows = [json.loads(path.read_text()) for path in (workdir / "jobs").glob("train-*/result.json")]
    assert [row["contents"] for row in rows if "contents" in row] == [{str(data): contents.content_hash(str(data))}]
    noted = [line for line in out.splitlines() if line.endswith(f"({tmp_path / 'no'} is not here: the path counts)")]
    assert len(noted) == 1


def break_json(folder):
    (folder / "config.json").write_text("{")


def break_config(folder):
    (folder / "config.json").write_text('{"model": 3}')


def remove_config(folder):
    (folder / "config.json").unlink()


def rename_job(folder):
    folder.rename(folder.with_name("something-else"))


@pytest.mark.parametrize("damage", [break_json, break_config, remove_config, rename_job])
def test_what_cannot_be_read_is_refused_in_one_line(damage, cli, tmp_path):
    workdir = tmp_path / "runs"
    make(workdir, "composition")
    damage(workdir / "jobs" / "sample-held-out-text-8a2420780b")
    before = tree(workdir)
    status, out, err = cli("plan", f"--migrate={workdir}")
    assert (status, out, len(err.strip().splitlines())) == (2, "", 1), err
    assert "--migrate" in err and "is not a job" in err
    assert tree(workdir) == before, "nothing is renamed"


def test_a_folder_without_jobs_is_refused(cli, tmp_path):
    for words in (["plan", f"--migrate={tmp_path / 'no'}"], ["run", "--migrate=runs"], ["plan", "--redo=AR"]):
        status, out, err = cli(*words)
        assert (status, out, len(err.strip().splitlines())) == (2, "", 1), err
        assert words[1].partition("=")[0] in err


def test_old_work_directories_are_not_run(cli, tmp_path):
    make(tmp_path / "runs", "composition")
    status, _, err = cli("run", "--config=configs/composition.py:debug")
    assert status == 2 and "plan --migrate=" in err and len(err.strip().splitlines()) == 1
