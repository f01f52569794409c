"""Zero-shot sets are read with the tokenizer of the model; missing sets are empty cells, or errors if required."""

import pytest
from ml_collections import ConfigDict

from configs import mdlm_owt
from diffusion.data import load_dataset
from experiments.identity import to_json
from experiments.plan import Job
from experiments.run import prepare
from experiments.tasks import zero_shot
from tests.checks import refused
from tests.experiments.conftest import run_of

TEXT = "the bank said it would not\n" * 60


@pytest.fixture
def job(tmp_path):
    """Return a run whose model reads bytes of a small file, with PTB available and the other sets missing."""
    (tmp_path / "text.txt").write_text("some words to learn from\n" * 200)
    (tmp_path / "ptb").mkdir()
    (tmp_path / "ptb" / "ptb.valid.txt").write_text(TEXT)
    config = mdlm_owt.get_config("debug")
    config.data.update(source="text_files", path=str(tmp_path / "text.txt"), cache_dir=str(tmp_path / "cache"))
    config.evaluate.zero_shot.ptb.path = str(tmp_path / "ptb")
    return run_of(config, load_dataset(config.data), tmp_path)


def score(dataset, split):
    """Return the number of examples in place of a likelihood."""
    return {"bound/perplexity": float(len(dataset.split(split))), "bound/tokens": 7, "bound/sequences": 3}


def test_available_sets_are_scored_and_missing_sets_cause_a_warning(job, tmp_path, capsys):
    """They are read with the tokenizer and window of the model."""
    job.config.evaluate.zero_shot.lambada.path = str(tmp_path / "nowhere")
    metrics, dataset = zero_shot.scores(job, score), zero_shot.read(job)["ptb"]
    examples = len(dataset.split("validation"))
    assert metrics == {"ptb_perplexity": examples, "ptb_tokens": 7} and examples > 10
    assert dataset.tokenizer is job.dataset.tokenizer and dataset.length == job.config.data.length
    assert dataset.fingerprint != job.dataset.fingerprint
    lines = capsys.readouterr().err.splitlines()
    assert any("ag_news, arxiv, lm1b, pubmed, wikitext;" in line and "zero_shot.NAME.path" in line for line in lines)
    assert any("evaluate.zero_shot.lambada.path" in line and "expects lambada_test.jsonl" in line for line in lines)


def test_missing_required_set_raises_before_training(job):
    job.config.evaluate.zero_shot_required = True
    with refused(r"^evaluate\.zero_shot\.ag_news\.path: .*--config\.evaluate\.zero_shot"):
        zero_shot.scores(job, score)
    evaluation = Job("evaluate-x", "evaluate", "MDLM", 0, {}, to_json(job.config))
    with refused(r"evaluate\.zero_shot\.ag_news\.path: '' does not exist"):
        prepare(evaluation, job.workdir)


def test_set_shorter_than_a_window_is_omitted(job, tmp_path, capsys):
    (tmp_path / "ptb" / "ptb.valid.txt").write_text("too short\n")
    assert zero_shot.scores(job, score) == {}
    assert "ptb is omitted" in capsys.readouterr().err


def test_without_sets_there_are_no_metrics(job):
    job.config.evaluate.zero_shot = ConfigDict()
    assert zero_shot.scores(job, score) == {}
