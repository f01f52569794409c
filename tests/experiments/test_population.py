"""`run --population=N`: which trainings run as one program, and that they are those that they are alone."""

import json
from dataclasses import replace

import pytest

from diffusion.storage import atomic_write
from diffusion.train.divergence import Diverged
from experiments import locks, population, run
from experiments.plan import plan
from experiments.states import states
from tests.checks import refused
from tests.experiments.conftest import one_line, words_of
from tests.small_configs import CAUSAL, small_config

RATES = (1e-3, 3e-3)


def trainings(fields, rates=RATES, seeds=(0, 1), **overrides):
    """Return the trainings of a row with several rates, and several seeds."""
    config = small_config(**{name.replace(".", "__"): value for name, value in fields.items()}, **overrides)
    config.seeds = seeds
    rows = [dict(name=f"rate {rate}", overrides={"optimizer.learning_rate": rate}, verbs=("train",)) for rate in rates]
    return plan(rows, config)


@pytest.fixture(scope="module")
def alone(fields, tmp_path_factory):
    """Return the folder and the results of four trainings that ran one after the other."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, run.run_jobs(trainings(fields), folder)


def test_three_of_four_trainings_as_one_program_have_the_results_of_each_alone(alone, fields, tmp_path, capsys):
    jobs = trainings(fields)
    results = run.run_jobs(jobs, tmp_path, most=3)
    said = capsys.readouterr().err
    assert f"3 trainings as one program: {', '.join(job.id for job in jobs[:3])}" in said
    assert said.count("done with others") == 3 and f"seed 1: running ({jobs[3].id})" in said
    assert [result.get("population") for result in results] == [3, 3, 3, None]
    for result, other in zip(results, alone[1], strict=True):
        assert result["job"] == other["job"] and "population" not in other
        assert result["metrics"] == pytest.approx(other["metrics"], rel=1e-4)
        for one, two in zip(result["history"], other["history"], strict=True):
            assert one == pytest.approx(two, rel=1e-3)
    losses = [result["metrics"]["validation_loss"] for result in results]
    assert len(set(losses)) == 4, "rates and seeds differ"
    assert all("with 2 others" in state.detail for state in states(jobs[:3], tmp_path))
    assert run.run_jobs(jobs, tmp_path, most=3) == results


def names(runs):
    return [each.job.id for each in runs]


def prepared(jobs, workdir):
    return [run.prepare(job, workdir) for job in jobs]


def test_what_goes_into_one_program(fields, text, tmp_path):
    """Seeds and the numbers in the state of the optimizer do; other data, networks and lengths do not."""
    first, *_ = runs = prepared(trainings(fields), tmp_path)
    assert names(population.chosen(first, runs, 9)) == names(runs)
    assert names(population.chosen(first, runs, 2)) == names(runs[:2])
    for changed in ({"train.steps": 5}, {"model.hidden": 32}, {"mesh.data": 2}, {"optimizer.momentum": 0.5}):
        other = prepared(trainings(fields | changed, seeds=(0,)), tmp_path)
        assert names(population.chosen(first, [first, *other], 9)) == [first.job.id], changed
    causal = prepared(trainings(fields | CAUSAL), tmp_path)
    assert names(population.chosen(causal[0], [*runs, *causal], 9)) == names(causal)
    (text / "other.txt").write_text((text / "text.txt").read_text().replace("words", "others"))
    (other, *_) = prepared(trainings(fields | {"data.path": str(text / "other.txt")}), tmp_path)
    assert population.program(replace(first, dataset=other.dataset)) != population.program(first)


def test_jobs_that_wait_run_or_are_done_are_left_out(fields, tmp_path):
    first, *others = runs = prepared(trainings(fields), tmp_path)
    waiting = replace(others[0], job=replace(others[0].job, needs={"start": "train-other"}))
    assert names(population.chosen(first, [waiting, *others[1:]], 9)) == names([first, *others[1:]])
    atomic_write(tmp_path / "jobs" / "train-other" / "result.json", "{}")
    assert names(population.chosen(first, [waiting, *others[1:]], 9)) == names(runs)
    with locks.held(others[0].job, tmp_path):
        assert names(population.chosen(first, runs, 9)) == names([first, *others[1:]])
        assert names(population.chosen(others[0], runs, 9)) == [others[0].job.id]
    atomic_write(others[0].folder / "result.json", "{}")
    assert names(population.chosen(first, runs, 3)) == names([first, *others[1:]])
    atomic_write(others[1].folder / "failed.json", json.dumps({"error": "training diverged at step 3: loss = nan"}))
    assert names(population.chosen(first, runs, 9)) == names([first, others[2]])
    assert names(population.chosen(others[1], runs, 9)) == [others[1].job.id]


def test_where_one_diverges_the_others_are_finished(fields, tmp_path):
    unsafe = fields | {"optimizer.clip": 1e30, "optimizer.warmup": 0, "train.steps": 8}
    first, ruined, last = jobs = trainings(unsafe, rates=(1e-3, 1e30, 3e-3), seeds=(0,))
    with pytest.raises(Diverged, match=ruined.id) as error:
        run.run_jobs(jobs, tmp_path, most=3)
    assert [state.name for state in states(jobs, tmp_path)] == ["done", "failed", "done"]
    assert json.loads((ruined.folder(tmp_path) / "failed.json").read_text())["error"] == str(error.value)
    results = run.run_jobs([first, last], tmp_path, most=3)
    assert [result["population"] for result in results] == [2, 2]
    with pytest.raises(Diverged, match=ruined.id):
        run.run_jobs(jobs, tmp_path, most=3)


def test_a_population_without_another_training_says_so(fields, alone, tmp_path, capsys):
    run.run_jobs(trainings(fields, rates=RATES[:1], seeds=(0,)), tmp_path, most=4)
    assert "--population: no two trainings were of one program" in capsys.readouterr().err


def test_bad_input_is_refused(cli, fields, monkeypatch):
    words = ("--config=configs/quickstart.py:debug", *words_of(fields))
    one_line(cli("train", *words, "--population=2"), "--population", "goes with run, not with train")
    monkeypatch.setattr(population.jax, "process_count", lambda: 2)
    with refused("--population: is for one process"):
        population.check(2)
    population.check(1)
