"""Text-to-image jobs with random weights: trees of images, runs that go on, lookahead files, and the debug table."""

import json

import jax
import numpy as np
import pytest

from configs import lidar_geneval
from diffusion.data.geneval import read_image, read_tree
from diffusion.report.rows import read_rows
from experiments.tasks import prompt_drawing
from experiments.tasks import text_to_image as task
from tests.experiments.conftest import results_of, words_of

TABLE = "--config=configs/lidar_geneval.py:debug"
ROW = "SD 1.5, DDPM: LiDAR, DPM-5, 3"
PROMPTS, IMAGES = 2, 2
FIELDS = {"sample.steps": 2, "sample.gaussian.lookahead.steps": 2, "sample.gaussian.guidance": 3.0}


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """Draw on one device, which every number of prompts at a time fits."""
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)


@pytest.fixture
def sample(succeed, tmp_path):
    """Return `sample(row, fields)`, which draws two prompts and returns the result and the folder of the images."""

    def call(row=ROW, **fields):
        fields = FIELDS | {key.replace("__", "."): value for key, value in fields.items()}
        before = set((tmp_path / "runs" / "jobs").glob("*/result.json"))
        succeed("sample", TABLE, f"--row={row}", *words_of(fields))
        (job,) = set((tmp_path / "runs" / "jobs").glob("*/result.json")) - before
        return json.loads(job.read_text()), job.parent / "images"

    return call


def times(folder):
    """Return when each file was written, by its name."""
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.rglob("*.*")}


def contents(root):
    """Return images as integers, and the scores without times, by the number of the prompt."""
    images = {each.number: np.stack([read_image(file) for file in each.files]).astype(int) for each in read_tree(root)}
    scores = {number: json.loads((root / f"{number:05d}" / "scores.json").read_text()) for number in images}
    return images, {number: each | {"seconds": None, "memory": None} for number, each in scores.items()}


def same(root, other):
    """Check that two trees hold the same prompts, with images and scores that differ by rounding alone."""
    (images, scores), (expected, known) = contents(root), contents(other)
    assert images.keys() == expected.keys() and scores.keys() == known.keys()
    for number, image in images.items():
        difference = np.abs(image - expected[number])
        assert difference.max() <= 1 and difference.mean() < 0.01
        assert scores[number]["prompt"] == known[number]["prompt"]
        for name, values in known[number]["rewards"].items():
            # One step of 255 changes rewards of random weights in the third digit.
            tolerance = 0.01 if difference.any() else 1e-4
            np.testing.assert_allclose(scores[number]["rewards"][name], values, rtol=1e-3, atol=tolerance)


def test_a_job_writes_genevals_tree_with_scores(sample, tmp_path):
    result, root = sample()
    tree = read_tree(root)
    known = task.captions.EXAMPLES
    assert [(each.number, each.metadata) for each in tree] == [(0, known[0]), (6, known[6])]
    for each in tree:
        assert [file.name for file in each.files] == ["0000.png", "0001.png"]
        one, other = (read_image(file) for file in each.files)
        assert one.shape == (16, 16, 3) and np.abs(one.astype(int) - other).mean() > 0.1
    scores = [json.loads((root / f"{each.number:05d}" / "scores.json").read_text()) for each in tree]
    assert all(each["rewards"].keys() == {"image_reward", "clip", "hps"} for each in scores)
    names = {"lookahead", "annotation", "sampling", "decoding"}
    assert all(each["seconds"].keys() == names and min(each["seconds"].values()) > 0 for each in scores)
    metrics, values = result["metrics"], [np.mean(each["rewards"]["clip"]) for each in scores]
    assert metrics["clip_score"] == pytest.approx(np.mean(values), rel=1e-6)
    assert metrics["clip_score_error"] == pytest.approx(np.std(values, ddof=1) / np.sqrt(2), rel=1e-6)
    assert metrics["clip_diversity"] == pytest.approx(np.mean([each["diversity"] for each in scores]), rel=1e-6)
    assert metrics["seconds_per_prompt"] == pytest.approx(np.mean([sum(each["seconds"].values()) for each in scores]))
    # Two steps of two images, and two of three lookahead samples, each of two evaluations.
    assert (metrics["evaluations"], metrics["backward_evaluations"]) == ((2 * 2 * 2 + 3 * 2 * 2) / 2, 0)
    assert metrics["reward_evaluations"] == 3 / 2 and metrics["prompts"] == 2
    assert [(each["number"], each["tag"]) for each in result["by_prompt"]] == [(0, "single_object"), (6, "colors")]
    assert result["by_prompt"][1]["clip"] == pytest.approx(values[1], rel=1e-6)
    assert result["signature"].startswith("Networks have random weights") and result["domain"] == "captions"
    folder = root.parent
    assert np.load(folder / "samples.npy").shape == (2, 2, 16, 16, 3)
    assert (folder / "samples.txt").read_text().split("\n")[:2] == [known[0]["prompt"], known[6]["prompt"]]
    pools = sorted((tmp_path / "runs" / "cache" / "lookahead").rglob("*.npz"))
    assert len(pools) == 2 and np.load(pools[0])["samples"].shape == (3, 8, 8, 4)


@pytest.mark.slow
def test_images_depend_on_neither_batches_nor_the_order_of_prompts(sample, monkeypatch, tmp_path):
    """Three prompts two at a time leave a batch that is not full."""
    fields, drawn = {"sample__gaussian__prompts": 3, "seeds": "(3,)"}, {}

    def keep(name, **more):
        """Draw with nothing in the work directory, which is moved away afterwards."""
        root = sample(**fields, **more)[1]
        (tmp_path / "runs").rename(tmp_path / name)
        drawn[name] = tmp_path / name / root.relative_to(tmp_path / "runs")

    keep("one", sample__batch=1)
    keep("two", sample__batch=2)
    chosen = task.chosen_prompts
    monkeypatch.setattr(task, "chosen_prompts", lambda config: dict(reversed(chosen(config).items())))
    keep("reverse", sample__batch=1, text_to_image__images=3)
    same(drawn["two"], drawn["one"])
    same(drawn["reverse"], drawn["one"])
    assert len({image.tobytes() for image in contents(drawn["one"])[0].values()}) == 3


def test_an_interrupted_run_goes_on(sample, cli, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        write = prompt_drawing.write_prompt

        def stopped(root, number, *rest):
            if number:
                raise ValueError("stopped")
            write(root, number, *rest)

        patch.setattr(prompt_drawing, "write_prompt", stopped)
        status, _, error = cli("sample", TABLE, f"--row={ROW}", *words_of(FIELDS))
        assert status == 2 and "stopped" in error
    (folder,) = (tmp_path / "runs" / "jobs").iterdir()
    assert not (folder / "result.json").exists() and (folder / "images" / "00000" / "scores.json").exists()
    pools, first = times(tmp_path / "runs" / "cache"), times(folder / "images" / "00000")
    result, root = sample()
    assert times(root / "00000") == first and times(tmp_path / "runs" / "cache") == pools
    (tmp_path / "runs").rename(tmp_path / "earlier")
    whole, other = sample()
    same(tmp_path / "earlier" / root.relative_to(tmp_path / "runs"), other)
    assert result["job"] == whole["job"] and result["metrics"].keys() == whole["metrics"].keys()
    # One prompt without its scores is drawn again, with the lookahead samples that are there.
    before, pools = times(other / "00000"), times(tmp_path / "runs" / "cache")
    (other / "00006" / "scores.json").unlink()
    (other.parent / "result.json").unlink()
    again = sample()[1]
    assert times(again / "00000") == before and times(tmp_path / "runs" / "cache") == pools
    same(again, tmp_path / "earlier" / root.relative_to(tmp_path / "runs"))


@pytest.mark.slow
def test_lookahead_samples_are_shared_by_rows_that_guide_differently(sample, cli, tmp_path):
    cache = tmp_path / "runs" / "cache" / "lookahead"
    first = contents(sample()[1])[0]
    written = times(cache)
    changed = contents(sample(sample__gaussian__lookahead__scale=0.0)[1])[0]
    assert any(np.any(changed[number] != image) for number, image in first.items())
    names = ("strength", "stop", "top")
    others = {f"sample__gaussian__lookahead__{name}": value for name, value in zip(names, (1.0, 0.6, 2), strict=True)}
    sample(**others, sample__gaussian__eta=0.0)
    assert times(cache) == written and len(list(cache.iterdir())) == 1
    sample(sample__gaussian__lookahead__guidance=1.0)
    assert len(list(cache.iterdir())) == 2 and written.items() <= times(cache).items()
    (file,) = (cache / next(iter(written)).split("/")[0]).glob("00006.npz")
    stored = dict(np.load(file))
    words = ("sample", TABLE, f"--row={ROW}", *words_of(FIELDS), "--config.sample.gaussian.lookahead.scale=2.0")
    np.savez(file, **stored | {"prompt": "a photo of a hat"})
    status, _, error = cli(*words)
    assert status == 2 and f"{file} holds lookahead samples of 'a photo of a hat', not '" in error
    file.write_bytes(file.read_bytes()[:100])
    status, _, error = cli(*words)
    assert status == 2 and f"{file} is damaged" in error and "delete it and run again" in error


def test_scores_of_other_prompts_and_damaged_scores_are_refused(sample, cli, tmp_path):
    root = sample(row="SD 1.5, DDPM: vanilla")[1]
    words = ("sample", TABLE, "--row=SD 1.5, DDPM: vanilla", *words_of(FIELDS))
    file = root / "00006" / "scores.json"
    for text, message in (('{"prompt": "a hat"}', "is of 'a hat', not '"), ("{", "cannot be read")):
        (root.parent / "result.json").unlink(missing_ok=True)
        file.write_text(text)
        status, _, error = cli(*words)
        assert status == 2 and f"{file} {message}" in error


def test_a_prompt_of_the_command_line_is_drawn_alone(sample):
    result, root = sample(row="SD 1.5, DDPM: vanilla", sample__prompt="a blue cube")
    (only,) = root.iterdir()
    assert json.loads((only / "metadata.jsonl").read_text()) == {"tag": "", "prompt": "a blue cube"}
    assert result["metrics"]["prompts"] == 1 and "lookahead_seconds_per_prompt" not in result["metrics"]


@pytest.mark.slow
def test_the_debug_table_runs_completely(succeed, tmp_path):
    succeed("run", TABLE, "--config.sample.steps=4")
    rows = read_rows(tmp_path / "runs/tables/lidar_geneval.debug/rows.jsonl")
    config = lidar_geneval.get_config("debug")
    metrics = {row["row"]: row["metrics"] for row in rows}
    assert metrics.keys() == {row["name"] for row in lidar_geneval.rows(config) if row["verbs"]}
    assert metrics["SD 1.5, DDPM: vanilla"]["evaluations"] == 4 * 2
    assert metrics["SD 1.5, DDPM: UG"]["backward_evaluations"] == 4 * 2
    assert metrics["SDXL, DDPM: DATE"]["evaluations"] == 4 * 2 + 2 * 2
    assert metrics["SDXL, DDPM: LiDAR, DMD-1, 3"]["evaluations"] == 4 * 2 + 3 / 2
    assert all(np.isfinite(list(each.values())).all() for each in metrics.values())
    assert results_of(tmp_path / "runs").keys() == {("sample", name) for name in metrics}
    assert "running" not in succeed("run", TABLE, "--config.sample.steps=4")[1]
