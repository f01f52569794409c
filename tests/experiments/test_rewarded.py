"""Sampling under a reward: the debug table of LiDAR on molecules, the best of several samples, and what is refused."""

import numpy as np
import pytest

from configs import lidar_molecules
from diffusion.sampling.uniform_lidar import Lookahead
from experiments import families, run
from experiments.families import uniform_sampling
from experiments.plan import plan, resolve
from experiments.run_context import build
from experiments.tasks import molecules, rewarded_sampling, text, token_batches, token_sampling
from tests.checks import refused

METHOD = "sample.uniform.method"


def config_of(**overrides):
    return resolve(lidar_molecules.get_config("debug"), overrides, 0)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("rewarded")


def jobs():
    """Return the jobs of all samples of the debug table."""
    config = config_of(**{"train.steps": 2})
    return plan([row | {"verbs": ("sample",)} for row in lidar_molecules.rows(config)], config)


def run_of(row, workdir):
    """Return the run of the samples of a row."""
    return build(next(job for job in jobs() if (job.verb, job.row) == ("sample", row)), workdir)


@pytest.fixture(scope="module")
def results(workdir):
    """Return results of the debug table, by row."""
    pytest.importorskip("rdkit")
    done = run.run_jobs(jobs(), workdir)
    return {result["row"]: result for result in done if result["verb"] == "sample"}


def test_each_method_draws_sets_and_counts_its_cost(results):
    config = config_of()
    sets, count, turns = config.sample.repeats, config.sample.count, config.sample.steps + 1
    ahead = (config.sample.uniform.lookahead.steps + 1) / count
    expected = {"UDLM": turns, "best of 4": 4 * turns, "FK 4": turns, "LiDAR 4": turns + 4 * ahead}
    expected |= {name: turns + 8 * ahead for name in ("LiDAR 8", "LiDAR 8, by sequence")}
    assert {name: results[name]["metrics"]["evaluations"] for name in expected} == pytest.approx(expected)
    for name in expected:
        assert len(results[name]["sets"]) == sets > 1
        assert ("lookahead_reward" in results[name]["metrics"]) == name.startswith("LiDAR")
    assert results["LiDAR 8"]["metrics"]["seconds_per_sample"] > 0


def test_lookahead_samples_are_those_of_the_plain_sampler_and_each_set_has_its_own(results, workdir, monkeypatch):
    config, context, calls = config_of(), run_of("LiDAR 4", workdir), []
    original = token_batches.draw_batches

    def recorded(run, sample, prompt, label, given=((),), **options):
        drawn = original(run, sample, prompt, label, given, **options)
        calls.append((given, drawn[0]["tokens"]))
        return drawn

    monkeypatch.setattr(token_batches, "draw_batches", recorded)
    prompt = token_sampling.initial_states(context, molecules.TASK)
    columns, _, extra = rewarded_sampling.guided(context, lambda run, tokens: tokens[:, 3].astype(np.float32), prompt)
    (_, ahead), (given, tokens) = calls
    assert len(given) == config.sample.repeats and len(ahead) == 4 * config.sample.repeats
    for index, (lookahead,) in enumerate(given):
        assert isinstance(lookahead, Lookahead)
        np.testing.assert_array_equal(lookahead.samples, ahead[4 * index : 4 * index + 4])
        np.testing.assert_array_equal(lookahead.rewards, lookahead.samples[:, 3])
    assert not np.array_equal(given[0][0].samples, given[1][0].samples)
    np.testing.assert_array_equal(columns["tokens"], tokens)
    assert extra["lookahead_reward"] == pytest.approx(ahead[:, 3].mean())


def test_the_best_of_several_is_the_first_with_the_largest_reward(results, workdir, monkeypatch):
    context, drawn = run_of("best of 4", workdir), {}

    def draws(run, sample, prompt, label):
        assert len(prompt) == 12
        drawn["tokens"] = np.tile(np.arange(12)[:, None], (1, prompt.shape[1]))
        counts = {name: np.arange(12) for name in token_batches.COLUMNS}
        return counts | drawn, 0.5

    monkeypatch.setattr(token_batches, "draw_batches", draws)
    values = np.array([0, 3, 3, 1, 5, 0, 0, 0, 0, 0, 0, 0], np.float32)
    prompt = np.full((3, context.config.data.length), 9, np.int32)
    columns, seconds = rewarded_sampling.best_of(context, lambda run, tokens: values[tokens[:, 0]], prompt, None)
    assert columns["tokens"][:, 0].tolist() == [1, 4, 8] and columns["tokens"].shape == prompt.shape
    assert columns["evaluations"].tolist() == [6, 22, 38] and seconds >= 2.0


def test_rewards_are_for_molecules_under_uniform_noise_without_classes(workdir):
    """Other samplers and data would ignore them."""
    for process, task in (("masked", molecules.TASK), ("uniform", text.TASK)):
        config = config_of(**{METHOD: "best_of", "process.name": process, "sample.repeats": 1})
        (*_, job) = plan([dict(name="row", overrides={}, verbs=("sample",))], config)
        with refused(r"sample\.uniform\.method: best_of is for molecules under process"):
            token_sampling.check(build(job, workdir), task)
    with refused(r"sample\.uniform\.method: lidar shares"):
        uniform_sampling.check(config_of(**{METHOD: "lidar", "model.labels": 3}))


def test_programs_of_lidar_are_lookahead_and_sampler():
    config = config_of(**{METHOD: "lidar"})
    system = families.system(config, config.data.vocab_size)
    ahead, guided = uniform_sampling.calls(config, system)
    assert (ahead.turns, guided.turns) == (config.sample.uniform.lookahead.steps + 1, config.sample.steps + 1)
