"""`sample --trace` through the command line: the traced samples are those of the job, which is not run again."""

import re
from pathlib import Path

import numpy as np
import pytest

from experiments.table import SEPARATOR
from experiments.tasks import token_sampling
from tests.experiments.conftest import one_line, words_of
from tests.report.test_trace import data_of, decoded

TEXT, SHAPES = "--config=configs/quickstart.py:debug", "--config=configs/lidar_shapes.py:debug"
EMBEDDING = "--config=configs/fastdiss_text.py:debug"
ROW = "--row=MDLM, ancestral, 4 steps"


@pytest.fixture(scope="module")
def overrides(fields):
    return words_of(fields)


def test_the_first_samples_of_a_job_that_is_done(succeed, tmp_path, overrides, monkeypatch):
    drawn, generate = [], token_sampling.generate
    monkeypatch.setattr(token_sampling, "generate", lambda *given: drawn.append(generate(*given)) or drawn[-1])
    words = ("sample", TEXT, ROW, *overrides, "--config.sample.batch=4", "--config.sample.prompt=the ")
    assert "trace" not in succeed(*words)[1]
    folder = next((tmp_path / "runs" / "jobs").glob("sample-*"))
    files = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    out, error = succeed(*words, "--trace")
    assert re.search(r"drawn again from the weights of train-\S+; the job is done, and the trace alone is made", error)
    assert out.endswith(f"wrote {folder / 'trace.html'}\n") and len(drawn) == 1
    assert all(path.stat().st_mtime_ns == written for path, written in files.items())
    data = data_of((folder / "trace.html").read_text())
    assert data["title"] == "MDLM, ancestral, 4 steps" and ["policy", "ancestral"] in data["facts"]
    assert data["files"] == ["samples.txt", "result.json", "config.json"]
    assert data["count"] == 6 and len(data["samples"]) == 4, "the prompt, four steps and noise removal"
    texts = (folder / "samples.txt").read_text()[:-1].split(SEPARATOR)
    (((first, *_), _),) = drawn
    assert len(texts) == len(first.tokens) == 8
    symbols = {}
    for sample, text, tokens in zip(data["samples"], texts, first.tokens, strict=False):
        state = list(sample["start"])
        assert sum(data["hidden"][symbol] for symbol in state) == len(tokens) - len("the ")
        for flat in sample["changes"]:
            for position, symbol in zip(flat[::2], flat[1::2], strict=True):
                state[position] = symbol
        # Bytes that are no text by themselves have equal names; each token has a symbol of its own.
        assert [symbols.setdefault(int(token), symbol) for token, symbol in zip(tokens, state, strict=True)] == state
        shown = zip(tokens, state, strict=True)
        assert all(data["names"][symbol] == chr(token) for token, symbol in shown if token < 128)
        joined = b"".join(b"<|endoftext|>" if token == 256 else bytes([token]) for token in tokens.tolist())
        assert joined.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n") == text
    assert len(set(symbols.values())) == len(symbols)


def test_states_of_uniform_diffusion_end_in_the_samples(succeed, tmp_path, overrides):
    words = ("--row=UDLM, 2 steps", *overrides, "--config.sample.batch=4", "--config.sample.prompt=the ", "--trace")
    succeed("sample", "--config=configs/udlm.py:debug", *words)
    folder = next((tmp_path / "runs" / "jobs").glob("sample-*"))
    data = data_of((folder / "trace.html").read_text())
    assert data["count"] == 4 and not any(data["hidden"]), "the prior, two steps and the one to clean data; no masks"
    texts = (folder / "samples.txt").read_text()[:-1].split(SEPARATOR)
    for sample, text in zip(data["samples"], texts, strict=False):
        state = list(sample["start"])
        assert [data["names"][symbol] for symbol in state[:4]] == list("the ")
        for flat in sample["changes"]:
            assert all(position > 3 for position in flat[::2]), "a prompt does not change"
            for position, symbol in zip(flat[::2], flat[1::2], strict=True):
                state[position] = symbol
        shown = "".join(data["names"][symbol] for symbol in state).replace("⟨end⟩", "<|endoftext|>")
        assert [each for each in shown if "!" <= each <= "~"] == [each for each in text if "!" <= each <= "~"]


def test_images_are_those_of_the_job(succeed):
    words = ("--row=exact: best of 2", "--config.sample.batch=2", "--config.sample.steps=3", "--trace")
    out, error = succeed("sample", SHAPES, *words, "--config.sample.gaussian.per_task=1")
    assert "done" not in error
    page = Path(out.splitlines()[-1].removeprefix("wrote "))
    data, prompts = data_of(page.read_text()), (page.parent / "samples.txt").read_text().splitlines()
    assert [sample["caption"] for sample in data["samples"]] == prompts[:2]
    saved = np.load(page.parent / "samples.npy")
    assert data["count"] == 4
    for sample, expected in zip(data["samples"], saved, strict=False):
        last = np.stack([decoded(uri) for uri in sample["clean"][-1]])
        assert len(last) == 2 * len(expected) and sum(sample["kept"]) == len(expected)
        assert sorted(one.tobytes() for one in last[sample["kept"]]) == sorted(one.tobytes() for one in expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", TEXT, "--row=MDLM"], "--trace: shows the steps of samples, and goes with sample, not with train"),
        (["sample", TEXT, "--row=AR"], "--trace: an autoregressive model has no denoising steps"),
        (["sample", TEXT, "--row=Held-out text"], "--trace: held-out data have no denoising steps"),
        (["sample", TEXT, ROW, "--config.sample.length=64"], "--trace: shows one window; leave --config.sample.len"),
        (
            ["sample", EMBEDDING, "--row=standard, 2 steps"],
            "--trace: shows masked and uniform-state diffusion, and Gaussian diff",
        ),
    ],
    ids=["train", "causal", "data", "windows", "embedding"],
)
def test_what_cannot_be_traced_raises_in_one_line(cli, tmp_path, overrides, words, message):
    one_line(cli(*words, *overrides, "--trace"), message)
    assert not (tmp_path / "runs" / "jobs").exists()
