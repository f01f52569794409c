"""Partial tables, which say what is missing, and tables of rows from several work directories."""

import json

import pytest

from diffusion.storage import atomic_write
from experiments import join, table
from tests.checks import refused
from tests.job_folders import MODULE, finish, small_table

SEEDS = (0, 1)


@pytest.fixture
def places(tmp_path):
    """Return the config, the jobs, and two work directories: seed 0 is done in one of them, and seed 1 in the other."""
    config, jobs = small_table(SEEDS)
    places = [tmp_path / "a", tmp_path / "b"]
    for job in jobs:
        finish(job, places[job.seed])
    return config, jobs, places


def cells(place):
    """Return the cells of the table in a work directory, by row, and its whole text."""
    (file,) = (place / "tables").glob("*/table.md")
    lines = [line.strip("|").split("|") for line in file.read_text().splitlines() if line.startswith("|")]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines[2:]}, file.read_text()


def test_a_partial_table_says_what_is_missing(places, capsys):
    config, jobs, (a, _b) = places
    failed = next(job for job in jobs if job.seed == 1 and job.row == "MDLM, 8")
    atomic_write(failed.folder(a) / "failed.json", json.dumps({"error": "out of memory", "host": "h", "time": 0.0}))
    table.regenerate(MODULE, config, a, committed=False, publish=False)
    text, printed = cells(a)[1], capsys.readouterr().out
    for line in (
        f"Partial table: {len(jobs) // 2} of {len(jobs)} jobs are not done. Missing:",
        "- AR: evaluate, seed 1: has not run",
        "- MDLM, 8: sample, seed 1: failed: out of memory",
    ):
        assert line in text and line in printed
    with refused(r"--publish: Partial table: 5 of 10 jobs are not done; publish the whole table"):
        table.regenerate(MODULE, config, a, committed=False, publish=True)
    for job in jobs:
        finish(job, a)
    table.regenerate(MODULE, config, a, committed=False, publish=False)
    assert "Partial" not in cells(a)[1] + capsys.readouterr().out


def test_seeds_of_two_machines_are_one_table(places):
    """Their times are not averaged, although both kinds of device are called cpu."""
    config, _jobs, (a, b) = places
    table.regenerate(MODULE, config, a, committed=False, publish=False, joined=[str(b)])
    found, text = cells(a)
    assert found["MDLM, 4"] == ["10.50 ± 0.50", "0.50 [1]; 0.50 [2]"]
    assert f"Times are those of [1] 1 x cpu of {a} and [2] 1 x cpu of {b}, and are not averaged" in text
    assert f"on 1 x cpu of {a} and 1 x cpu of {b} (python 3.11.7, jax 0.10); 2 seed(s)" in text
    assert "Partial" not in text and "†" not in text
    assert not (a / "tables" / "test.debug" / "speed.png").exists(), "a plot would average them"
    assert (a / "tables" / "test.debug" / "samples.md").read_text().count("## MDLM, 4, seed") == len(SEEDS)
    with refused("--publish: rows of several work directories; "):
        table.regenerate(MODULE, config, a, committed=False, publish=True, joined=[str(b)])


def test_times_of_one_kind_of_accelerator_are_averaged(places):
    config, jobs, (a, b) = places
    for job in jobs:
        finish(job, (a, b)[job.seed], device_kind="TPU v5e", device_count=4)
    table.regenerate(MODULE, config, a, committed=False, publish=False, joined=[str(b)])
    found, text = cells(a)
    assert found["MDLM, 4"] == ["10.50 ± 0.50", "0.50"] and "on 4 x TPU v5e (python" in text


def test_results_of_another_commit_are_marked(places):
    config, jobs, (a, b) = places
    job = next(job for job in jobs if job.row == "MDLM, 8" and job.seed == 1)
    finish(job, b, commit="fedcba987654")
    table.regenerate(MODULE, config, a, committed=False, publish=False, joined=[str(b)])
    found, text = cells(a)
    assert set(found) == {"AR", "MDLM, 4", "MDLM, 8 †"}
    assert "† Results of another commit than 0123456789ab: 'MDLM, 8', seed 1, at fedcba987654." in text


def test_a_job_that_is_done_twice_must_have_one_result(places):
    """Times and origin may differ, and the first place counts."""
    _config, jobs, (a, b) = places
    job = next(job for job in jobs if job.verb == "sample" and job.seed == 0)
    metrics = {"perplexity": 10.0, "seconds_per_sample": 9.0}
    finish(job, b, metrics=metrics, seconds=1.0, commit="fedcba987654", row="another table's name")
    rows = join.rows_of(jobs, [a, b])
    (row,) = (row for row in rows if row["job"] == job.id)
    assert (row["place"], row["metrics"]["seconds_per_sample"], row["row"]) == (str(a), 0.5, job.row)
    finish(job, b, metrics=metrics | {"perplexity": 10.000001})
    with refused(rf"--join: {job.id} has another metrics.perplexity in {b} than in {a}; leave one of them out"):
        join.rows_of(jobs, [a, b])


def test_differences_of_results_are_found_in_every_part():
    assert join.difference({"sets": [{"nll": 1.0, "seconds": 2.0}]}, {"sets": [{"nll": 1.0, "seconds": 3.0}]}) == ""
    assert join.difference({"sets": [{"nll": 1.0}]}, {"sets": [{"nll": 2.0}]}) == "sets"
    assert join.difference({"metrics": {"nll": 1.0}}, {"metrics": {}}) == "metrics.nll"
    assert join.difference({"data": "x", "commit": "x"}, {"data": "y", "commit": "y"}) == "data"


def test_rows_of_other_data_are_refused(places):
    _config, jobs, (a, b) = places
    job = next(job for job in jobs if job.row == "MDLM, 8" and job.seed == 1)
    finish(job, b, data="d2")
    with refused(rf"--join: the data of 'MDLM, 8' in {b} differ from those in {a}"):
        join.rows_of(jobs, [a, b])
    both = [each for each in jobs if each.row == "MDLM, 8"]
    for each in both:
        finish(each, (a, b)[each.seed], data="d2")
    with refused(r"--join: The data of '.*' and 'MDLM, 8' differ; these rows cannot be compared; leave out"):
        join.rows_of(jobs, [a, b])


def test_a_folder_without_jobs_of_the_table_is_refused(places, tmp_path):
    config, jobs, (a, b) = places
    with refused(r"--join: .*nowhere does not exist"):
        join.rows_of(jobs, [a, tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with refused(r"--join: no job of this table is done in .*empty; pass the flags and the data"):
        join.rows_of(jobs, [a, tmp_path / "empty"])
    with refused(r"--join: the committed rows are those of one table"):
        table.regenerate(MODULE, config, a, committed=True, publish=False, joined=[str(b)])
    rows = join.rows_of(jobs, [tmp_path / "empty", a, b])
    assert len(rows) == len(jobs), "the folder of the table itself may be empty"
