"""The verb `sample`: prompts, held-out text in place of samples, and GPT-2 as the judge, from checkpoint to table."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from ml_collections import ConfigDict

from configs.base import defaults
from configs.recipes.small import tiny
from diffusion.data.subword import byte_alphabet, gpt2
from diffusion.metrics.text import sample_entropy
from diffusion.nets.gpt2 import GPT2
from diffusion.train.mesh import make_mesh
from diffusion.train.weights import load_weights, save_weights
from experiments import convert, run
from experiments.plan import Job, plan, to_json
from experiments.run_context import build
from experiments.table import SEPARATOR
from experiments.tasks import token_sampling

LENGTH, CONTEXT, COUNT = 32, 16, 12
# Two merges beyond the bytes, so that the judge's tokens are not the model's.
MERGES = [("t", "h"), ("th", "e")]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("sample")


@pytest.fixture(scope="module")
def config(workdir):
    """A byte-level model of a file of lines, with random weights for a checkpoint."""
    lines = "".join(f"the {number} words of the line that the model reads\n" for number in range(400))
    (workdir / "text.txt").write_text(lines)
    made = tiny(defaults("test", "debug"))
    made.data.update(source="text_files", path=str(workdir / "text.txt"), document="line")
    made.data.update(cache_dir=str(workdir / "cache"))
    made.sample.update(count=COUNT, batch=8, steps=2)
    made.checkpoint = str(workdir / "weights")
    system = context_of(made, workdir).system
    params = jax.jit(system.init)(jax.random.key(0))
    params["head"]["linear"]["bias"] = jax.random.normal(jax.random.key(1), (system.classes,))
    save_weights(workdir / "weights", params)
    return made


@pytest.fixture(scope="module")
def judged(config, workdir):
    """The same with a tiny GPT-2, converted from the names and shapes of the public file."""
    (workdir / "tokens").mkdir()
    vocabulary = byte_alphabet() | {"".join(pair): 256 + number for number, pair in enumerate(MERGES)}
    vocabulary["<|endoftext|>"] = 258
    (workdir / "tokens" / "vocab.json").write_text(json.dumps(vocabulary))
    merges = "".join(f"{first} {second}\n" for first, second in MERGES)
    (workdir / "tokens" / "merges.txt").write_text("#version: 0.2\n" + merges)
    gpt2_file(workdir / "gpt2.safetensors", len(vocabulary))
    convert.run("gpt2", str(workdir / "gpt2.safetensors"), workdir / "gpt2")
    made = config.copy_and_resolve_references()
    made.judge.update(name="gpt2", checkpoint=str(workdir / "gpt2"), tokenizer_path=str(workdir / "tokens"))
    made.quality.update(parse=True, mauve=True)
    return made


def gpt2_file(path, vocabulary, hidden=64):
    random = np.random.default_rng(0)
    shapes = {"wte.weight": (vocabulary, hidden), "wpe.weight": (CONTEXT, hidden)}
    linears = {"attn.c_attn": (1, 3), "attn.c_proj": (1, 1), "mlp.c_fc": (1, 4), "mlp.c_proj": (4, 1)}
    for name, (inputs, outputs) in linears.items():
        shapes |= {f"h.0.{name}.weight": (inputs * hidden, outputs * hidden), f"h.0.{name}.bias": (outputs * hidden,)}
    for name in ("ln_f", "h.0.ln_1", "h.0.ln_2"):
        shapes |= {f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)}
    tensors = {name: (0.2 * random.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    safetensors.numpy.save_file(tensors, path)


def job_of(config, **changes):
    made = config.copy_and_resolve_references()
    made.sample.update(changes)
    return plan([dict(name="row", overrides={}, verbs=("sample",))], made)[0]


def execute(job, workdir):
    """The result of one job."""
    (row,) = run.run_jobs([job], workdir)
    return row


def context_of(config, workdir):
    return build(Job("x", "sample", "row", 0, {}, to_json(config)), workdir)


def prompted(config, workdir, length=LENGTH, causal=False, **changes):
    made = config.copy_and_resolve_references()
    made.sample.update(changes)
    job = context_of(made, workdir)
    job.config.model.causal = causal
    return token_sampling.prompts(job, length)


def test_prompts_hold_the_text_at_both_ends_and_masks_between(config, workdir):
    mask = 257
    np.testing.assert_array_equal(prompted(config, workdir), np.full(LENGTH, mask))
    both = prompted(config, workdir, prompt="the é", suffix="end")
    np.testing.assert_array_equal(both[:6], list("the é".encode()))
    np.testing.assert_array_equal(both[-3:], list(b"end"))
    assert (both[6:-3] == mask).all() and len(both) == LENGTH and both.dtype == np.int32
    assert (prompted(config, workdir, prompt="x" * 31)[-1:] == mask).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(prompt="x" * 32), r"sample\.prompt: 32 \+ 0 tokens leave nothing of 32.*sample\.length"),
        (dict(prompt="x" * 20, suffix="y" * 12), r"sample\.prompt: 20 \+ 12 tokens leave nothing of 32"),
        (dict(suffix="y", causal=True), r"sample\.suffix: an autoregressive model cannot read what follows"),
    ],
)
def test_prompts_that_cannot_be(config, workdir, changes, said):
    with pytest.raises(ValueError, match=said):
        prompted(config, workdir, **changes)
    assert len(prompted(config, workdir, length=64, **dict(changes, causal=False))) == 64


def test_samples_keep_prompt_and_suffix_and_say_what_they_cost(config, workdir):
    job = job_of(config, prompt="the ", suffix=".\n")
    row = execute(job, workdir)
    texts = (job.folder(workdir) / "samples.txt").read_text()[:-1].split(SEPARATOR)
    assert len(texts) == COUNT and len(set(texts)) > 1
    assert all(text.startswith("the ") and text.endswith(".\n") for text in texts)
    metrics = row["metrics"]
    assert metrics["evaluations"] == 3 and metrics["samples"] == COUNT and 0 <= metrics["idle_share"] < 1
    assert "generative_perplexity" not in metrics, "there is no judge"
    assert row["sampler"] == "ancestral"


def test_held_out_text_stands_in_for_samples_and_needs_no_weights(judged, workdir):
    """Scored by the converted GPT-2 as by hand; against itself, MAUVE is 1."""
    job = job_of(judged, policy="data")
    row = execute(job, workdir)
    metrics = row["metrics"]
    dataset = context_of(judged, workdir).dataset
    tokens = np.stack([dataset.split("test").rows([index])["tokens"][0] for index in range(COUNT)])
    texts = (job.folder(workdir) / "samples.txt").read_text()[:-1].split(SEPARATOR)
    assert texts == [dataset.tokenizer.decode(row) for row in tokens]
    assert metrics["evaluations"] == 0 and metrics["entropy"] == pytest.approx(sample_entropy(tokens).mean())
    assert metrics["mauve"] == pytest.approx(1)
    assert {"parse_rate", "diversity", "repetition", "precision"} <= set(metrics)
    assert metrics["generative_perplexity"] == pytest.approx(by_hand(judged, workdir, dataset, tokens), rel=1e-4)
    assert metrics["evaluator"] == "GPT-2 (64 wide, 1 blocks)"


def by_hand(config, workdir, dataset, tokens):
    """exp of the mean surprise of GPT-2's own tokens of each text, cut to its context."""
    tokenizer = gpt2(config.judge.tokenizer_path)
    net = GPT2(**json.loads((workdir / "gpt2" / "config.json").read_text())["sizes"])
    assert (net.vocab_size, net.context, tokenizer.vocab_size) == (259, CONTEXT, 259)
    params = load_weights(
        workdir / "gpt2" / "weights", lambda key: net.init(key, jnp.zeros((1, 2), jnp.int32))["params"], make_mesh()
    )
    rows = [tokenizer.encode("\n".join(dataset.tokenizer.documents(row)))[:CONTEXT] for row in tokens]
    # Every text is longer than the judge's context, so no padding enters.
    ids = np.stack(rows)
    assert (ids > 255).any() and ids.shape == (len(tokens), CONTEXT)
    log_p = jax.nn.log_softmax(jax.jit(net.apply)({"params": params}, ids)[:, :-1])
    chosen = np.take_along_axis(np.asarray(log_p, np.float64), ids[:, 1:, None], axis=-1)
    return np.exp(-chosen.mean())


def test_generated_text_is_judged_too(judged, workdir):
    metrics = execute(job_of(judged), workdir)["metrics"]
    held_out = execute(job_of(judged, policy="data"), workdir)["metrics"]
    assert metrics["evaluations"] == 3 and metrics["steps"] == 2
    assert np.isfinite(metrics["generative_perplexity"])
    assert metrics["generative_perplexity"] != held_out["generative_perplexity"]
    assert 0 < metrics["mauve"] <= held_out["mauve"]


@pytest.mark.parametrize(
    ("section", "changes", "said"),
    [
        ("judge", dict(name="gpt3"), r"judge\.name: unknown 'gpt3'; known: none, row, gpt2"),
        ("judge", dict(checkpoint="/none"), r"judge\.checkpoint: '/none' holds no converted weights; .*launch\.py con"),
        ("judge", dict(tokenizer_path=""), r"judge\.tokenizer_path: '' does not exist; pass --config\.judge\.token"),
        ("sample", dict(prompt="x" * 99), r"sample\.prompt: 99 \+ 0 tokens"),
        ("sample", dict(count=0), r"sample\.count"),
    ],
)
def test_bad_sampling_is_told_before_anything_runs(judged, workdir, section, changes, said):
    made = judged.copy_and_resolve_references()
    made[section].update(changes)
    job = replace(job_of(made), id="never")
    with pytest.raises(ValueError, match=said) as caught:
        run.run_jobs([job], workdir)
    assert "\n" not in str(caught.value) and not job.folder(workdir).exists()


def test_a_tokenizer_that_is_not_the_judges_is_refused(judged, workdir, tmp_path):
    made = judged.copy_and_resolve_references()
    made.sample.policy = "data"
    made.judge.tokenizer_path = str(tmp_path)
    with pytest.raises(ValueError, match=r"^judge\.tokenizer_path: gpt2 expects vocab\.json"):
        execute(job_of(made), workdir)
    (tmp_path / "vocab.json").write_text(json.dumps(byte_alphabet() | {"<|endoftext|>": 256}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ValueError, match=r"judge\.tokenizer_path: .* has 257 tokens, the weights in .* have 259"):
        execute(job_of(made), workdir)


def test_a_configs_copy_is_what_a_job_carries(config):
    """Jobs hold plain data, from which the same config comes back."""
    assert to_json(ConfigDict(job_of(config).config)) == job_of(config).config
