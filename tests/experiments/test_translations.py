"""Translation by the verbs: a whole table, a user's file, candidates, and errors for invalid input."""

import json

import numpy as np
import pytest

from configs import fastdiss_translation
from diffusion.metrics.translation import check_measures, scores
from diffusion.report.rows import read_rows
from experiments.tasks.translation_sources import user_lines
from tests.checks import refused
from tests.experiments.conftest import one_line

CONFIG = "--config=configs/fastdiss_translation.py:debug"
ONE, SEVERAL = "--row=MANS and SCP, 5 steps", "--row=MANS and SCP, 3 steps, 3 x 2, MBR"
# Synthetic data are written at once; a network with one block compiles in a few seconds.
SMALL = ("--config.encoder_decoder.hidden=8", "--config.encoder_decoder.heads=1", "--config.train.steps=2")


def results(runs):
    """Return the rows of the table by name."""
    rows = read_rows(runs / "tables" / "fastdiss_translation.debug" / "rows.jsonl")
    return {row["row"]: row for row in rows if row["verb"] == "sample"}


def test_rows_are_trained_sampled_and_collected_and_a_file_is_translated(succeed, tmp_path):
    """Two rows share one training; one has a trace of its steps, and one has several candidates."""
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "tables" / "fastdiss_translation.debug"
    for words in (("sample", CONFIG, ONE), ("sample", CONFIG, SEVERAL), ("table", CONFIG)):
        succeed(*words)
    assert len(list((runs / "jobs").glob("train-*"))) == 1
    rows = results(runs)
    check_rows(rows)
    trace = rows["MANS and SCP, 5 steps"]["by_step"]
    assert [each["step"] for each in trace] == [1, 2, 3, 4, 5]
    assert "changed" not in trace[0] and all(0 <= each["changed"] <= 1 for each in trace[1:])
    # The first step has no self-conditioning input: its error is the mean square of the estimate.
    assert trace[0]["memory_error"] > trace[2]["memory_error"] > 0
    images = {path.name for path in folder.glob("*.png")}
    assert images == {"embedding.png", "dialects.png", "dialects_seconds.png"}
    assert "BLEU nrefs:4" in (folder / "table.md").read_text()
    assert "output" in (folder / "samples.md").read_text()
    check_translation_of_a_file(succeed, tmp_path)


def check_rows(rows):
    """Check the metrics of every row."""
    config = fastdiss_translation.get_config("debug")
    assert rows.keys() <= {row["name"] for row in fastdiss_translation.rows(config)}
    for name, row in rows.items():
        metrics = row["metrics"]
        assert metrics["sentences"] == config.sample.count and metrics["seconds_per_sentence"] > 0
        assert 0 <= metrics["bleu"] <= 100 and 0 <= metrics["exact"] <= 1
        assert "nrefs:4" in row["signature"] and "tok:none" in row["signature"]
        assert metrics["candidates"] == (6 if "3 x 2" in name else 1)
    assert rows["MANS and SCP, 5 steps"]["metrics"]["evaluations"] == 5


@pytest.mark.slow
def test_whole_table_with_its_autoregressive_model(succeed, tmp_path):
    succeed("run", CONFIG)
    rows = results(tmp_path / "runs")
    check_rows(rows)
    assert rows.keys() == {row["name"] for row in fastdiss_translation.rows(fastdiss_translation.get_config("debug"))}
    assert "steps" not in rows["AR"]["metrics"] and rows["AR"]["sampler"] == "beam"
    folder = tmp_path / "runs" / "tables" / "fastdiss_translation.debug"
    assert {path.name for path in folder.glob("*.png")} == {
        "loss.png", "embedding.png", "dialects.png", "dialects_seconds.png"}  # fmt: skip
    assert "running" not in succeed("run", CONFIG)[1]


def check_translation_of_a_file(succeed, tmp_path):
    """Check a translation with the stored weights: its lines, and the warnings."""
    file = tmp_path / "mine.txt"
    file.write_text("s1 s2 s3 s4\n\ns1 s2 s3 s4 s5 s6 s7 s8 s9\ns1 house s2 s3\n")
    printed, error = succeed("sample", CONFIG, ONE, f"--config.sample.source={file}")
    assert "1 line is longer than 8 tokens (data.source_length): truncated" in error and "(number 3)" in error
    assert "with words outside the vocabulary: read as <unk> (number 4)" in error
    assert "empty: the translation is empty (number 2)" in error
    assert "translating" in error, "a progress line, also without a terminal"
    job = next(path for path in (tmp_path / "runs" / "jobs").iterdir() if (path / "translations.txt").exists())
    lines = (job / "translations.txt").read_text().splitlines()
    assert len(lines) == 4 and not lines[1]
    metrics = json.loads((job / "result.json").read_text())["metrics"]
    assert metrics["sentences"] == 3 and metrics["sources_cut"] == 1 and "bleu" not in metrics
    assert "source     s1 s2 s3 s4" in printed
    # A changed file is another job; the noise of a sentence depends on its index only.
    file.write_text("s1 s2 s3 s4\n")
    assert "running (sample" in succeed("sample", CONFIG, ONE, f"--config.sample.source={file}")[1]
    others = [path for path in (tmp_path / "runs" / "jobs").glob("*/translations.txt") if path.parent != job]
    assert others[0].read_text().splitlines() == lines[:1]


def test_lines_of_a_file_of_sources(cli, tmp_path):
    """Only a newline ends a line."""
    file = tmp_path / "mine.txt"
    for content, message in ((b"\n  \n", "has no text"), (b"s1\xff s2\n", "is not UTF-8 (byte 2)")):
        file.write_bytes(content)
        one_line(cli("sample", CONFIG, ONE, f"--config.sample.source={file}"), message)
    file.write_bytes("\ufeffs1\r\ns2\u2028s3\x0c\x85s4\rs5\n\ns6\n".encode())
    assert user_lines(str(file)) == ["s1", "s2\u2028s3\x0c\x85s4\rs5", "", "s6"]


def test_measures_are_those_of_the_libraries():
    """References may differ in number; BLEU is that of sacreBLEU for these sentences."""
    result = scores(["w1 w2 w3 w4 w5 w6"], [["w1 w2 w3 w4 w6 w5"]], tokenize="none")
    assert result.metrics["bleu"] == pytest.approx(56.2341, abs=1e-3) and "tok:none" in result.signature
    result = scores(["a b c d", "e f g h"], [["x", "a  b c d"], ["e f g i"]], tokenize="none")
    assert result.metrics["exact"] == 0.5 and result.metrics["length_ratio"] == 8 / 5
    assert scores(["a b c d"], [["x", "a b c d"]], tokenize="none").metrics["bleu"] == pytest.approx(100)


def test_rouge_is_the_best_over_references():
    pytest.importorskip("rouge_score")
    metrics = scores(["the cat sat"], [["a dog", "the cat sat down"]], rouge=True).metrics
    assert metrics["rouge1"] == pytest.approx(100 * 6 / 7) and metrics["rouge2"] == pytest.approx(100 * 4 / 5)


def test_bert_score_of_a_model_in_a_folder(tmp_path):
    """Equal texts have a score of 100, and the best reference counts; the weights are random."""
    pytest.importorskip("bert_score", reason="optional package bert-score")
    transformers = pytest.importorskip("transformers", reason="optional package transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "dog", "a"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    sizes = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
    config = transformers.BertConfig(vocab_size=len(words), max_position_embeddings=16, **sizes)
    transformers.BertModel(config).save_pretrained(tmp_path)
    check_measures("13a", rouge=False, bertscore=str(tmp_path))

    def bert_score(*references):
        return scores(["the cat sat"], [references], bertscore=str(tmp_path), layer=2).metrics["bertscore"]

    assert bert_score("the cat sat") == pytest.approx(100, abs=1e-3)
    assert bert_score("a dog", "the cat sat") == pytest.approx(100, abs=1e-3) and bert_score("a dog") < 99.9


def test_scores_without_model_or_package_raise(tmp_path, monkeypatch):
    with refused(r"sample.translation.bertscore: '/none' has no config.json; name the folder"):
        check_measures("13a", rouge=False, bertscore="/none")
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_measures("13a", rouge=False)
    with refused(r"sample.translation.rouge: rouge-score is not installed; pip install"):
        check_measures("13a", rouge=True)
    with refused(r"sample.translation.bertscore: bert-score is not installed; pip install"):
        check_measures("13a", rouge=False, bertscore=str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("table", ["fastdiss_paraphrase", "fastdiss_summarization"])
def test_other_tables_run_completely(succeed, tmp_path, table):
    succeed("run", f"--config=configs/{table}.py:debug", *SMALL)
    rows = read_rows(tmp_path / f"runs/tables/{table}.debug/rows.jsonl")
    assert all(np.isfinite(row["metrics"]["bleu"]) for row in rows if row["verb"] == "sample")
