"""Prompted images in the verbs: methods, lookahead caches, metrics, and errors for invalid input."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs import lidar_mixture, lidar_shapes
from diffusion.oracles.mixture import mixture
from diffusion.report.rows import read_rows
from experiments.tasks import prompted_models
from experiments.tasks.mixture import quantiles
from tests.experiments.conftest import results_of

SHAPES, MIXTURE = "--config=configs/lidar_shapes.py:debug", "--config=configs/lidar_mixture.py:debug"
PROMPT = "--config.sample.prompt=a square above a ring"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Return a folder for the images."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cli(cli, cache):
    """Return the command line with a shared cache for tens of thousands of generated images."""
    return lambda *words: cli(*words, f"--config.data.cache_dir={cache}")


def test_exact_models_need_no_training_and_lookahead_samples_are_cached(succeed, tmp_path):
    words, runs = ("sample", SHAPES, "--row=exact: LiDAR 8", "--config.sample.repeats=2"), tmp_path / "runs"
    succeed(*words)
    assert [job.name.split("-")[0] for job in (runs / "jobs").iterdir()] == ["sample"]
    row = results_of(runs)["sample", "exact: LiDAR 8"]
    assert {"overall", "task_counting", "diversity", "seconds_per_prompt", "overall_interval"} <= row["metrics"].keys()
    # There are 10 steps for 4 images, and 3 for each of 8 lookahead samples, in 6 x 2 prompts of two sets.
    assert row["metrics"]["evaluations"] == 10 + 8 * 3 / 4
    assert row["metrics"]["reward_evaluations"] == 2
    assert len(row["by_prompt"]) == 2 and len(row["by_prompt"][0]) == 12
    cached = sorted((runs / "cache" / "lookahead").iterdir())
    assert len(cached) == 2
    stored = np.load(cached[0])
    assert stored["samples"].shape == (12, 8, 16, 16, 3) and stored["rewards"].shape == (12, 8)
    written = [file.stat().st_mtime_ns for file in cached]
    # Lookahead samples do not depend on the scale.
    succeed(*words, "--config.sample.gaussian.lookahead.scale=3.0")
    assert [file.stat().st_mtime_ns for file in sorted((runs / "cache" / "lookahead").iterdir())] == written
    (next((runs / "jobs").iterdir()) / "samples.png").stat()


def test_infinite_rewards_and_cached_samples_of_other_prompts_raise(cli, tmp_path, monkeypatch):
    words, cached = ("sample", SHAPES, "--row=exact: LiDAR 8", PROMPT), tmp_path / "runs" / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(prompted_models, "prompt_reward", lambda image, metadata: float("inf"))
        status, _, error = cli(*words)
    assert status == 2 and "judge.row: the reward of sample 0 of 'a square above a ring' is inf" in error
    assert not list(cached.rglob("*.npz"))
    assert cli(*words)[0] == 0
    (file,) = (cached / "lookahead").iterdir()
    np.savez(file, **dict(np.load(file)) | {"prompts": ["a ring"]})
    status, _, error = cli(*words, "--config.sample.gaussian.lookahead.scale=1.0")
    assert status == 2 and "holds lookahead samples of other prompts" in error


def test_guidance_helps_exact_models(succeed, tmp_path):
    """Scores increase from base to best of several to LiDAR; FK has a low diversity, and LiDAR a high one."""
    names = ("base", "best of 2", "FK difference", "LiDAR 8")
    for name in names:
        succeed("sample", SHAPES, f"--row=exact: {name}", "--config.sample.gaussian.per_task=4")
    results = results_of(tmp_path / "runs")
    metrics = {name: results["sample", f"exact: {name}"]["metrics"] for name in names}
    scores = {name: each["graded"] for name, each in metrics.items()}
    assert scores["base"] + 0.05 < scores["best of 2"] < scores["LiDAR 8"]
    assert scores["base"] + 0.1 < scores["FK difference"]
    assert metrics["FK difference"]["diversity"] < 0.5 * metrics["base"]["diversity"]
    assert metrics["LiDAR 8"]["diversity"] > 0.3 * metrics["base"]["diversity"]


def test_likelihood_of_images_is_a_bound_in_bits(succeed, tmp_path):
    succeed("evaluate", SHAPES, "--row=base", "--config.evaluate.points=5")
    row = results_of(tmp_path / "runs")["evaluate", "base"]
    assert row["estimator"] == "bound_gaussian"
    assert row["metrics"]["bound_gaussian/sequences"] == 16 and row["metrics"]["bound_gaussian/tokens"] == 16 * 768
    # A bound of an untrained network at few points exceeds 8 bits per value, and is finite.
    assert 8 < row["metrics"]["bits_per_token"] < np.inf


@pytest.mark.slow
def test_trained_table_runs_completely(succeed, tmp_path):
    succeed("run", SHAPES)
    rows = read_rows(tmp_path / "runs/tables/lidar_shapes.debug/rows.jsonl")
    config = lidar_shapes.get_config("debug")
    sampled = {row["row"]: row["metrics"] for row in rows if row["verb"] == "sample"}
    assert sampled.keys() == {row["name"] for row in lidar_shapes.rows(config) if "sample" in row["verbs"]}
    steps, both = config.sample.steps, 2
    assert sampled["base"]["evaluations"] == steps * both
    assert sampled["gradient"]["backward_evaluations"] == steps * both
    assert sampled["DATE, every 2"]["evaluations"] == steps * both * 1.5
    assert sampled["LiDAR 4"]["evaluations"] == steps * both + 4 * 3 * both / 4
    assert all(0 <= each["overall"] <= 1 and each["overall_low"] <= each["overall_high"] for each in sampled.values())
    assert next(row for row in rows if row["verb"] == "evaluate")["metrics"]["examples"] == 16
    assert {path.name for path in (tmp_path / "runs/tables/lidar_shapes.debug").glob("*.png")} >= {
        "exact.png", "time.png", "evaluations.png", "regression.png", "methods.png"}  # fmt: skip
    # The same command reads completed jobs.
    assert "running" not in succeed("run", SHAPES)[1]


def test_mixture_table_measures_every_method(succeed, tmp_path):
    succeed("run", MIXTURE)
    rows = read_rows(tmp_path / "runs/tables/lidar_mixture.debug/rows.jsonl")
    metrics = {row["row"]: row["metrics"] for row in rows}
    assert metrics.keys() == {row["name"] for row in lidar_mixture.rows(lidar_mixture.get_config("debug"))}
    assert metrics["none, DDPM"]["wasserstein"] > 1.5
    assert metrics["exact, DDPM"]["wasserstein"] < 0.6
    assert metrics["LiDAR 16, DDPM"]["inverse_root_of_particles"] == 1 / 4
    assert metrics["LiDAR 16, DDPM"]["lookahead_particles"] == 16 and "lookahead_particles" not in metrics["none, DDPM"]
    assert metrics["LiDAR 16, DDPM"]["gradient_error"] < metrics["LiDAR 4, DDPM"]["gradient_error"]


def test_quantiles_of_a_mixture():
    normal = quantiles(mixture([1.0], [2.0], [4.0]), 1001)
    assert normal[500] == pytest.approx(2.0, abs=1e-3)
    assert normal.std() == pytest.approx(2.0, rel=0.01)
    bimodal = quantiles(mixture([0.5, 0.5], [-3.0, 3.0], [0.01, 0.01]), 1000)
    assert np.all(bimodal[:499] < 0) and np.all(bimodal[501:] > 0)
    assert jnp.isfinite(bimodal).all()
