"""Unconditional embedding diffusion of text in the verbs: windows from noise, and windows around a prompt."""

import json

import pytest

from experiments.table import SEPARATOR

CONFIG, ROW = "--config=configs/fastdiss_text.py:debug", "--row=standard, 2 steps"


@pytest.fixture(scope="module")
def overrides(fields):
    """Return overrides for the small text and a network that compiles in a few seconds."""
    small = {"encoder_decoder.hidden": 8, "encoder_decoder.heads": 1, "encoder_decoder.decoder_blocks": 1}
    return [f"--config.{name}={value}" for name, value in (fields | small).items()]


def test_windows_from_noise_and_around_a_prompt(cli, tmp_path, overrides):
    status, _, error = cli("sample", CONFIG, ROW, *overrides)
    assert status == 0, error
    result = json.loads(next((tmp_path / "runs" / "jobs").glob("sample-*/result.json")).read_text())
    assert result["metrics"]["samples"] == 8 and result["metrics"]["evaluations"] == 2
    assert result["metrics"]["entropy"] > 0 and result["sampler"] == "embedding" and result["domain"] == "text"
    status, _, error = cli(
        "sample", CONFIG, ROW, *overrides, "--config.sample.prompt=the ", "--config.sample.suffix=read"
    )
    assert status == 0 and "done before (train" in error, error
    files = [path.read_text() for path in (tmp_path / "runs" / "jobs").glob("sample-*/samples.txt")]
    samples = [text.rstrip("\n").split(SEPARATOR) for text in files]
    assert sum(all(each.startswith("the ") and each.endswith("read") for each in texts) for texts in samples) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--config.sample.policy=ancestral"],
            "sample.policy: ancestral is for masked tokens; encoder_decoder samples",
        ),
        (["--config.sample.length=16"], "sample.length: embedding diffusion writes data.length = 32 tokens"),
        (["--config.sample.translation.path=spaced"], "sample.translation.path: spaced is for schedules that are"),
        (
            ["--config.encoder_decoder.kind=joint", "--config.embedding.fill=True"],
            "encoder_decoder.kind: joint reads sources, and text_files has none",
        ),
        (["--config.data.packing=padded"], "data.packing: embedding diffusion writes whole windows"),
    ],
    ids=["policy", "length", "path", "kind", "packing"],
)
def test_errors_are_one_line(cli, tmp_path, overrides, words, message):
    status, _, error = cli("sample", CONFIG, ROW, *overrides, *words)
    assert status == 2 and message in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "runs" / "jobs").exists()
