"""Prompted images in the verbs: methods, lookahead caches, metrics, and errors for invalid input."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from configs import lidar_mixture, lidar_shapes
from diffusion.oracles.mixture import mixture
from experiments import families
from experiments.plan import resolve
from experiments.tasks import prompted_models
from experiments.tasks.mixture import quantiles
from experiments.tasks.prompted_models import Slot
from experiments.tasks.prompted_sampling import finite

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


def result(runs, name):
    file = next((runs / "jobs").glob(f"sample-{name}-*/result.json"))
    return json.loads(file.read_text())


def test_exact_models_need_no_training_and_lookahead_samples_are_cached(cli, tmp_path):
    status, _, error = cli("sample", SHAPES, "--row=exact: LiDAR 8", "--config.sample.repeats=2")
    assert status == 0, error
    runs = tmp_path / "runs"
    assert [job.name.split("-")[0] for job in (runs / "jobs").iterdir()] == ["sample"]
    row = result(runs, "exact-lidar-8")
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
    assert cli("sample", SHAPES, "--row=exact: LiDAR 8", "--config.sample.repeats=2",
               "--config.sample.gaussian.lookahead.scale=3.0")[0] == 0  # fmt: skip
    assert [file.stat().st_mtime_ns for file in sorted((runs / "cache" / "lookahead").iterdir())] == written
    (next((runs / "jobs").iterdir()) / "samples.png").stat()


def test_cached_lookahead_samples_of_other_prompts_raise(cli, tmp_path):
    words = ("sample", SHAPES, "--row=exact: LiDAR 8", PROMPT)
    assert cli(*words)[0] == 0
    file = next((tmp_path / "runs" / "cache" / "lookahead").iterdir())
    stored = dict(np.load(file))
    np.savez(file, **stored | {"prompts": ["a ring"]})
    status, _, error = cli(*words, "--config.sample.gaussian.lookahead.scale=1.0")
    assert status == 2 and "holds lookahead samples of other prompts" in error


def test_guidance_helps_exact_models(cli, tmp_path):
    """Scores increase from base to best of several to LiDAR; FK has a low diversity, and LiDAR a high one."""
    metrics = {}
    for name in ("base", "best of 2", "FK difference", "LiDAR 8"):
        status, _, error = cli("sample", SHAPES, f"--row=exact: {name}", "--config.sample.gaussian.per_task=4")
        assert status == 0, error
        metrics[name] = result(tmp_path / "runs", f"exact-{name.lower().replace(' ', '-')}")["metrics"]
    scores = {name: each["graded"] for name, each in metrics.items()}
    assert scores["base"] + 0.05 < scores["best of 2"] < scores["LiDAR 8"]
    assert scores["base"] + 0.1 < scores["FK difference"]
    assert metrics["FK difference"]["diversity"] < 0.5 * metrics["base"]["diversity"]
    assert metrics["LiDAR 8"]["diversity"] > 0.3 * metrics["base"]["diversity"]


def test_likelihood_of_images_is_a_bound_in_bits(cli, tmp_path):
    status, _, error = cli("evaluate", SHAPES, "--row=base", "--config.evaluate.points=5")
    assert status == 0, error
    row = json.loads(next((tmp_path / "runs" / "jobs").glob("evaluate-base-*/result.json")).read_text())
    assert row["estimator"] == "bound_gaussian"
    assert row["metrics"]["bound_gaussian/sequences"] == 16 and row["metrics"]["bound_gaussian/tokens"] == 16 * 768
    # A bound of an untrained network at few points exceeds 8 bits per value, and is finite.
    assert 8 < row["metrics"]["bits_per_token"] < np.inf


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"evaluate.points": 1}, "evaluate.points: must lie in 2 .. 1000, not 1"),
        ({"process.schedule": "cosine"}, "process.schedule: bound_gaussian is for chains"),
        ({"evaluate.estimator": "nll_any_order"}, "evaluate.estimator: images have bound_gaussian alone"),
        ({"model.net": "picture_oracle"}, "model.net: picture_oracle is an exact model"),
    ],
)
def test_unsuitable_estimators_for_images_raise(fields, message):
    config = resolve(lidar_shapes.get_config("debug"), fields, 0)
    with pytest.raises(ValueError, match=message) as caught:
        system = families.system(config, 256)
        [families.estimate(config, system, name) for name in families.estimators(config)]
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_trained_table_runs_completely(cli, tmp_path):
    status, _, error = cli("run", SHAPES)
    assert status == 0, error
    rows = [
        json.loads(line) for line in (tmp_path / "runs/tables/lidar_shapes.debug/rows.jsonl").read_text().splitlines()
    ]
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
    assert "running" not in cli("run", SHAPES)[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.sample.prompt=a red circl"], "sample.prompt: 'a red circl' is outside the grammar"),
        (["--config.sample.gaussian.lookahead.particles=0"], "sample.gaussian.lookahead.particles: must be at least 1"),
        (["--config.sample.gaussian.images=0"], "sample.gaussian.images: must be at least 1, not 0"),
        (["--config.sample.gaussian.method=magic"], "sample.gaussian.method: unknown 'magic'"),
        (["--config.sample.gaussian.solver=rk4"], "sample.gaussian.solver: unknown 'rk4'"),
        (["--config.sample.gaussian.eta=2.0"], "sample.eta: must lie in [0, 1], not 2.0"),
        (["--config.sample.steps=0"], "sample.steps: must lie in 1 .. 999, not 0"),
        (
            ["--config.sample.gaussian.split=held"],
            "sample.gaussian.split: unknown 'held'; known: test, train, validation",
        ),
        (["--config.process.schedule=cosine"], "sample.gaussian.path: leading is for schedules that are chains"),
        (["--config.process.schedule=log_linear"], "process.schedule: unknown 'log_linear'"),
        (["--config.sample.batch=3"], "sample.batch: 3 is not a multiple of 2 devices"),
    ],
    ids=lambda value: value[0].partition("=")[0].strip("-") if isinstance(value, list) else "",
)
def test_errors_are_one_line(cli, tmp_path, words, message):
    # The command line replaces the settings of the row.
    status, _, error = cli("sample", SHAPES, "--row=exact: LiDAR 8", *words)
    assert status == 2
    assert message in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "runs" / "jobs").exists()


def test_gradient_methods_with_exact_models_raise(cli):
    status, _, error = cli("sample", SHAPES, "--row=exact: base", "--config.sample.gaussian.method=gradient")
    assert status == 2 and "needs a reward with a gradient" in error


def test_rewards_that_are_not_finite_raise_with_their_prompt():
    slots = [Slot("a ring", 0), Slot("a plus", 0)]
    rewards = np.zeros((2, 3), np.float32)
    assert finite(rewards, slots) is rewards
    rewards[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"judge.row: the reward of sample 2 of 'a plus' is nan"):
        finite(rewards, slots)


def test_error_for_infinite_rewards_is_one_line(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(prompted_models, "prompt_reward", lambda image, metadata: float("inf"))
    status, _, error = cli("sample", SHAPES, "--row=exact: LiDAR 8", PROMPT)
    assert status == 2 and "judge.row: the reward of sample 0 of 'a square above a ring' is inf" in error
    assert not list((tmp_path / "runs" / "cache").rglob("*.npz"))


def test_mixture_table_measures_every_method(cli, tmp_path):
    status, _, error = cli("run", MIXTURE)
    assert status == 0, error
    rows = (tmp_path / "runs/tables/lidar_mixture.debug/rows.jsonl").read_text().splitlines()
    metrics = {row["row"]: row["metrics"] for row in map(json.loads, rows)}
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
