"""Tokenizers stored with weights: which one reads the data of a job, and what is refused."""

import json
from contextlib import nullcontext
from dataclasses import replace

import pytest

from configs.base import defaults
from configs.recipes.small import tiny
from diffusion.data import stored_tokenizers
from experiments.convert.command import run as convert
from experiments.identity import to_json
from experiments.plan import Job
from experiments.run import check_tokenizers
from experiments.run_context import read_data, weights_read
from tests.checks import refused
from tests.data.files import write
from tests.experiments.conftest import run_of
from tests.experiments.weight_files import gpt2_vocabulary, mdlm_file


@pytest.fixture
def config(tmp_path):
    """Return a config of a text with a BPE, for which `read` of other words makes another one."""
    config = tiny(defaults("test", "debug"))
    config.data.update(source="text_files", document="line", tokenizer="bpe", vocab_size=280, length=8)
    return config


def read(config, folder, word, *weights):
    write(folder, {"text.txt": f"{word} and so on {word}\n" * 3 + "".join(f"{word} {n}\n" for n in range(300))})
    config.data.path = str(folder / "text.txt")
    return read_data(config, folder, weights)


def stored(dataset, folder):
    """Return a folder of weights that are trained with the tokenizer of a data set."""
    return write(folder, {f"weights/{stored_tokenizers.FILE}": stored_tokenizers.record(dataset.tokenizer)})


def test_other_text_is_read_with_the_tokenizer_of_the_weights(config, tmp_path):
    first = read(config, tmp_path / "first", "apple")
    weights = stored(first, tmp_path / "job")
    assert read(config, tmp_path / "other", "zebra").tokenizer.fingerprint != first.tokenizer.fingerprint
    for folders in ([weights], [weights / "weights"], [tmp_path / "none", weights]):
        other = read(config, tmp_path / "other", "zebra", *folders)
        assert other.tokenizer.fingerprint == first.tokenizer.fingerprint
        assert other.tokenizer.encode("apple").tolist() == first.tokenizer.encode("apple").tolist()
    config.data.tokenizer = "bytes"
    with refused(r"data\.tokenizer: the weights in .*job were trained with 'bpe', not with 'bytes'; pass --config"):
        read(config, tmp_path / "other", "zebra", weights)
    write(weights, {f"weights/{stored_tokenizers.FILE}": '{"name": "bpe"}'})
    with refused(r"checkpoint: .*trained_with\.json is damaged \('fingerprint'\)"):
        read(config, tmp_path / "other", "zebra", weights)


def test_a_vocabulary_that_is_named_must_be_the_stored_one(config, tmp_path):
    first = read(config, tmp_path / "first", "apple")
    for number, merges in enumerate((first.tokenizer.arguments["library"], None)):
        content = json.loads(merges or first.tokenizer.arguments["library"])
        content["model"]["merges"] = content["model"]["merges"] if merges else []
        write(tmp_path / str(number), {"tokenizer.json": json.dumps(content)})
    config.data.update(tokenizer="file", tokenizer_path=str(tmp_path / "0"))
    weights = stored(read(config, tmp_path / "first", "apple"), tmp_path / "job")
    config.data.tokenizer_path = ""
    assert read(config, tmp_path / "other", "zebra", weights).tokenizer.name == "file"
    config.data.tokenizer_path = str(tmp_path / "1")
    with refused(
        r"data\.tokenizer_path: the weights in .*job were trained with another vocabulary of 'file'; leave it"
    ):
        read(config, tmp_path / "other", "zebra", weights)


def test_a_converted_folder_keeps_the_tokenizer_of_its_checkpoint(config, tmp_path, capsys):
    """It is read without the files of the vocabulary, and other bytes are refused."""
    mdlm_file(tmp_path / "model.safetensors", vocabulary=258)
    vocabulary = gpt2_vocabulary(tmp_path / "vocabulary")
    convert("mdlm", str(tmp_path / "model.safetensors"), tmp_path / "public", tokenizer=str(vocabulary))
    config.data.update(tokenizer="gpt2", tokenizer_path="")
    for folder in (tmp_path / "public", tmp_path / "public" / "weights"):
        dataset = read(config, tmp_path / "text", "apple", folder)
        assert (dataset.tokenizer.name, dataset.tokenizer.vocab_size) == ("gpt2", 257)
    config.data.tokenizer = "bytes"
    with refused(r"data\.tokenizer: the weights in .*public were trained with 'gpt2', not with 'bytes'"):
        read(config, tmp_path / "text", "apple", tmp_path / "public")


def test_the_latest_weights_of_a_job_come_first(config, tmp_path):
    config.checkpoint = "/weights"
    roles = {"weights": "w", "start": "s", "scorer": "x"}
    jobs = [Job(verb, verb, "row", 0, roles, to_json(config)) for verb in ("train", "evaluate")]
    names = [[folder.name for folder in weights_read(job, tmp_path, config.checkpoint)] for job in jobs]
    assert names == [["train", "w", "s", "weights"], ["w", "s", "weights"]]


@pytest.mark.parametrize(
    ("role", "domain", "wrong"), [("weights", "values", 1), ("scorer", "text", 1), ("scorer", "image", 0)]
)
@pytest.mark.parametrize("trained", [True, False])
def test_weights_that_read_other_ids_are_refused(role, domain, wrong, trained, config, tmp_path):
    """Whether they are there, or the same command trains them."""
    datasets = [replace(read(config, tmp_path / word, word), domain=domain) for word in ("apple", "zebra")]
    run = run_of(config, datasets[0], tmp_path, {role: "need"})
    for dataset, differs in zip(datasets, (0, wrong), strict=True):
        need = run_of(config, dataset, tmp_path)
        write(tmp_path / "jobs" / "need", {stored_tokenizers.FILE: need.tokenizer} if trained else {})
        with refused(f"data.tokenizer: 'row' reads another vocabulary than its {role}") if differs else nullcontext():
            check_tokenizers(run, {} if trained else {"need": need})
