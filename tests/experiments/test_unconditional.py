"""Unconditional embedding diffusion of text in the verbs: windows from noise, and windows around a prompt."""

from experiments.table import SEPARATOR
from tests.experiments.conftest import results_of, words_of

CONFIG, ROW = "--config=configs/fastdiss_text.py:debug", "--row=standard, 2 steps"


# A network that compiles in a few seconds.
SMALL = {"encoder_decoder.hidden": 8, "encoder_decoder.heads": 1, "encoder_decoder.decoder_blocks": 1}


def test_windows_from_noise_and_around_a_prompt(succeed, tmp_path, fields):
    overrides = words_of(fields | SMALL)
    succeed("sample", CONFIG, ROW, *overrides)
    result = results_of(tmp_path / "runs")["sample", "standard, 2 steps"]
    assert result["metrics"]["samples"] == 8 and result["metrics"]["evaluations"] == 2
    assert result["metrics"]["entropy"] > 0 and result["sampler"] == "embedding" and result["domain"] == "text"
    _, error = succeed("sample", CONFIG, ROW, *overrides, "--config.sample.prompt=the ", "--config.sample.suffix=read")
    assert "done before (train" in error
    files = [path.read_text() for path in (tmp_path / "runs" / "jobs").glob("sample-*/samples.txt")]
    samples = [text.rstrip("\n").split(SEPARATOR) for text in files]
    assert sum(all(each.startswith("the ") and each.endswith("read") for each in texts) for texts in samples) == 1
