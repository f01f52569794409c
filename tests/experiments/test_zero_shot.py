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


def test_available_sets_are_scored_and_missing_sets_cause_a_warning(job, capsys):
    metrics = zero_shot.scores(job, score)
    examples = len(zero_shot.read(job)["ptb"].split("validation"))
    assert metrics == {"ptb_perplexity": examples, "ptb_tokens": 7} and examples > 10
    line = capsys.readouterr().err.splitlines()[0]
    assert "ag_news, arxiv, lambada, lm1b, pubmed, wikitext;" in line and "zero_shot.NAME.path" in line


def test_warning_for_a_path_without_the_set_names_the_expected_file(job, tmp_path, capsys):
    job.config.evaluate.zero_shot.lambada.path = str(tmp_path / "nowhere")
    zero_shot.scores(job, score)
    lines = capsys.readouterr().err.splitlines()
    assert any("evaluate.zero_shot.lambada.path" in line and "expects lambada_test.jsonl" in line for line in lines)


def test_other_corpora_are_read_with_the_tokenizer_and_window_of_the_model(job):
    dataset = zero_shot.read(job)["ptb"]
    assert dataset.tokenizer is job.dataset.tokenizer
    assert dataset.length == job.config.data.length
    assert dataset.fingerprint != job.dataset.fingerprint


def test_missing_required_set_raises(job):
    job.config.evaluate.zero_shot_required = True
    with refused(r"^evaluate\.zero_shot\.ag_news\.path: .*--config\.evaluate\.zero_shot"):
        zero_shot.scores(job, score)


def test_missing_required_set_raises_before_training(job):
    job.config.evaluate.zero_shot_required = True
    evaluation = Job("evaluate-x", "evaluate", "MDLM", 0, {}, to_json(job.config))
    with pytest.raises(ValueError, match=r"evaluate\.zero_shot\.ag_news\.path: '' does not exist"):
        prepare(evaluation, job.workdir)


def test_set_shorter_than_a_window_is_omitted(job, tmp_path, capsys):
    (tmp_path / "ptb" / "ptb.valid.txt").write_text("too short\n")
    assert zero_shot.scores(job, score) == {}
    assert "ptb is omitted" in capsys.readouterr().err


def test_without_sets_there_are_no_metrics(job):
    job.config.evaluate.zero_shot = ConfigDict()
    assert zero_shot.scores(job, score) == {}
