"""The verb `sample`: prompts, held-out text in place of samples, and GPT-2 as the judge."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import defaults
from configs.recipes.small import tiny
from diffusion.data.subword import byte_alphabet, gpt2
from diffusion.metrics.text import sample_entropy, scored_targets
from diffusion.nets.gpt2 import GPT2
from diffusion.train.mesh import make_mesh
from diffusion.train.weights import load_weights, save_weights
from experiments import run
from experiments.convert import command as convert
from experiments.identity import to_json
from experiments.plan import Job, plan, resolve
from experiments.run_context import build
from experiments.table import SEPARATOR
from experiments.tasks import token_sampling
from tests.checks import refused
from tests.experiments.weight_files import gpt2_file
from tests.weights import randomized

LENGTH, CONTEXT, COUNT = 32, 16, 12
# With two merges in addition to bytes, tokens of the judge differ from those of the model.
MERGES = [("t", "h"), ("th", "e")]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("sample")


@pytest.fixture(scope="module")
def config(workdir):
    """Return the config of a byte-level model of lines, with random weights as the checkpoint."""
    lines = "".join(f"the {number} words of the line that the model reads\n" for number in range(400))
    (workdir / "text.txt").write_text(lines)
    config = tiny(defaults("test", "debug"))
    config.data.update(source="text_files", path=str(workdir / "text.txt"), document="line")
    config.data.update(cache_dir=str(workdir / "cache"))
    config.sample.update(count=COUNT, batch=8, steps=2)
    config.checkpoint = str(workdir / "weights")
    save_weights(workdir / "weights", randomized(run_of(config, workdir).system.init))
    return config


@pytest.fixture(scope="module")
def judged(config, workdir):
    """Return the config with a tiny GPT-2 as the judge, converted from names and shapes of the public file."""
    (workdir / "tokens").mkdir()
    vocabulary = byte_alphabet() | {"".join(pair): 256 + number for number, pair in enumerate(MERGES)}
    vocabulary["<|endoftext|>"] = 258
    (workdir / "tokens" / "vocab.json").write_text(json.dumps(vocabulary))
    merges = "".join(f"{first} {second}\n" for first, second in MERGES)
    (workdir / "tokens" / "merges.txt").write_text("#version: 0.2\n" + merges)
    gpt2_file(workdir / "gpt2.safetensors", len(vocabulary), CONTEXT)
    convert.run("gpt2", str(workdir / "gpt2.safetensors"), workdir / "gpt2")
    config = config.copy_and_resolve_references()
    config.judge.update(name="gpt2", checkpoint=str(workdir / "gpt2"), tokenizer_path=str(workdir / "tokens"))
    config.quality.update(parse=True, mauve=True)
    return config


def job_of(config, **changes):
    overrides = {f"sample.{name}": value for name, value in changes.items()}
    return plan([dict(name="row", overrides=overrides, verbs=("sample",))], config)[0]


def execute(job, workdir):
    """Return the result of one job."""
    (row,) = run.run_jobs([job], workdir)
    return row


def run_of(config, workdir):
    return build(Job("x", "sample", "row", 0, {}, to_json(config)), workdir)


def test_prompts_have_text_at_both_ends_and_masks_between(config, workdir):
    def prompted(length=LENGTH, **changes):
        changed = resolve(config, {f"sample.{name}": value for name, value in changes.items()}, 0)
        return token_sampling.prompts(run_of(changed, workdir), length)

    mask = 257
    np.testing.assert_array_equal(prompted(), np.full(LENGTH, mask))
    both = prompted(prompt="the é", suffix="end")
    np.testing.assert_array_equal(both, [*"the é".encode(), *[mask] * (LENGTH - 9), *b"end"])
    assert both.dtype == np.int32 and prompted(prompt="x" * 31)[-1] == mask
    assert len(prompted(length=64, prompt="x" * 32)) == 64


def test_samples_have_prompt_and_suffix_and_results_have_their_cost(config, workdir):
    job = job_of(config, prompt="the ", suffix=".\n")
    row = execute(job, workdir)
    texts = (job.folder(workdir) / "samples.txt").read_text()[:-1].split(SEPARATOR)
    assert len(texts) == COUNT and len(set(texts)) > 1
    assert all(text.startswith("the ") and text.endswith(".\n") for text in texts)
    metrics = row["metrics"]
    assert metrics["evaluations"] == 3 and metrics["samples"] == COUNT and 0 <= metrics["idle_share"] < 1
    assert "generative_perplexity" not in metrics, "there is no judge"
    assert row["sampler"] == "ancestral"


def test_held_out_text_replaces_samples_and_needs_no_weights(judged, workdir):
    """The perplexity of the converted GPT-2 is that of a separate computation; MAUVE of equal sets is 1."""
    job = job_of(judged, policy="data")
    row = execute(job, workdir)
    metrics = row["metrics"]
    dataset = run_of(judged, workdir).dataset
    tokens = np.stack([dataset.split("test").rows([index])["tokens"][0] for index in range(COUNT)])
    texts = (job.folder(workdir) / "samples.txt").read_text()[:-1].split(SEPARATOR)
    assert texts == [dataset.tokenizer.decode(row) for row in tokens]
    assert metrics["evaluations"] == 0 and metrics["entropy"] == pytest.approx(sample_entropy(tokens).mean())
    assert metrics["mauve"] == pytest.approx(1)
    assert {"parse_rate", "diversity", "repetition", "precision"} <= set(metrics)
    assert metrics["generative_perplexity"] == pytest.approx(
        perplexity_of_gpt2(judged, workdir, dataset, tokens), rel=1e-4
    )
    assert metrics["evaluator"] == "GPT-2 (64 wide, 1 blocks)"


def perplexity_of_gpt2(config, workdir, dataset, tokens):
    """Return exp of the mean negative log probability of the GPT-2 tokens of each text, truncated to its context."""
    tokenizer = gpt2(config.judge.tokenizer_path)
    net = GPT2(**json.loads((workdir / "gpt2" / "config.json").read_text())["sizes"])
    assert (net.vocab_size, net.context, tokenizer.vocab_size) == (259, CONTEXT, 259)
    params = load_weights(
        workdir / "gpt2" / "weights", lambda key: net.init(key, jnp.zeros((1, 2), jnp.int32))["params"], make_mesh()
    )

    def encode(row):
        """Encode documents one by one; their ends are the end token of GPT-2."""
        pieces = dataset.tokenizer.pieces(row)
        return [token for text in pieces for token in ([tokenizer.eos_id] if text is None else tokenizer.encode(text))]

    rows = [encode(row)[:CONTEXT] for row in tokens]
    # Every text is longer than the context of the judge, so there is no padding.
    ids = np.stack(rows)
    assert (ids > 255).any() and ids.shape == (len(tokens), CONTEXT)
    log_p = jax.nn.log_softmax(jax.jit(net.apply)({"params": params}, ids)[:, :-1])
    token_log_p = np.take_along_axis(np.asarray(log_p, np.float64), ids[:, 1:, None], axis=-1)
    return np.exp(-token_log_p[..., 0][scored_targets(ids, tokenizer.eos_id)].mean())


def test_generated_text_is_judged(judged, workdir):
    metrics = execute(job_of(judged), workdir)["metrics"]
    held_out = execute(job_of(judged, policy="data"), workdir)["metrics"]
    assert metrics["evaluations"] == 3 and metrics["steps"] == 2
    assert np.isfinite(metrics["generative_perplexity"])
    assert metrics["generative_perplexity"] != held_out["generative_perplexity"]
    assert 0 < metrics["mauve"] <= held_out["mauve"]


def test_tokenizer_of_another_model_raises(judged, workdir, tmp_path):
    def refuse(path, message):
        config.judge.tokenizer_path = path
        with refused(message):
            execute(job_of(config, policy="data"), workdir)

    config = judged.copy_and_resolve_references()
    refuse("", r"judge\.tokenizer_path: '' does not exist; pass --config\.judge\.tokenizer")
    refuse(str(tmp_path), r"^judge\.tokenizer_path: gpt2 expects vocab\.json")
    (tmp_path / "vocab.json").write_text(json.dumps(byte_alphabet() | {"<|endoftext|>": 256}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    refuse(str(tmp_path), r"judge\.tokenizer_path: .* has 257 tokens, the weights in .* have 259")
