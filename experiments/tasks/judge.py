"""Judge of generated text: a causal model of the same table, or GPT-2 with converted weights."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer
from ml_collections import ConfigDict

from diffusion.categorical import target_log_probs
from diffusion.data import Tokenizer
from diffusion.data.subword import gpt2
from diffusion.metrics.text import retokenize
from diffusion.objectives.autoregressive import next_token_log_probs
from diffusion.readout import BoundDenoiser
from diffusion.train.mesh import make_mesh
from diffusion.train.weights import load_weights
from diffusion.types import Params
from experiments.families.gpt2 import initializer, network
from experiments.run_context import Run


@dataclass(frozen=True)
class Judge:
    """Functions of a judge: `log_probs(tokens)` [B, L] in nats, `features(tokens)` [B, L, D], and tokens of samples."""

    name: str
    eos: int | None
    log_probs: Callable[[Integer[np.ndarray, "B L"]], Float[Array, "B L"]]
    features: Callable[[Integer[np.ndarray, "B L"]], Float[Array, "B L D"]]
    tokens: Callable[[Int[np.ndarray, "N L"]], tuple[Int[np.ndarray, "N M"], Int[np.ndarray, " N"] | None]]


def check_judge_name(options: ConfigDict) -> None:
    """Raise ValueError for an unknown judge."""
    if options.name not in ("none", "row", "gpt2"):
        raise ValueError(f"judge.name: unknown {options.name!r}; known: none, row, gpt2")


def check_judge(options: ConfigDict) -> None:
    """Raise ValueError for an unknown judge, or missing files."""
    check_judge_name(options)
    if options.name != "gpt2":
        return
    network(options.checkpoint, "judge.checkpoint")
    if not options.tokenizer_path or not Path(options.tokenizer_path).expanduser().exists():
        raise ValueError(
            f"judge.tokenizer_path: {options.tokenizer_path!r} does not exist; pass "
            "--config.judge.tokenizer_path=FOLDER with GPT-2's vocab.json and merges.txt"
        )


def make_judge(run: Run) -> Judge | None:
    """Judge of a config, or None.

    Raises:
      ValueError: for an unknown judge, or a missing checkpoint.
    """
    options = run.config.judge
    check_judge(options)
    if options.name == "none":
        return None
    return trained_judge(run) if options.name == "row" else gpt2_judge(options, run.config, run.dataset.tokenizer)


def trained_judge(run: Run) -> Judge:
    """Causal row of the same table, which reads the tokens of the samples, or their sub-tokens, without conversion."""
    config, system, params = run.load("scorer")
    pad_id = run.dataset.tokenizer.pad_id
    process, given_first = system.masking, config.model.start == "window"

    @jax.jit
    def log_probs(params, tokens):
        return next_token_log_probs(BoundDenoiser(system.denoiser, params), process, tokens, given_first)

    @jax.jit
    def features(params, tokens):
        features = jnp.asarray(system.net.apply({"params": params}, process.encode(tokens), method="features"))
        return features[:, process.subtokens - 1 :: process.subtokens]  # at the last sub-token of a token

    return Judge(
        name=f"AR trained here ({run.job.needs['scorer']})",
        eos=run.dataset.tokenizer.eos_id,
        log_probs=lambda tokens: log_probs(params, tokens),
        features=lambda tokens: features(params, tokens),
        tokens=lambda tokens: (tokens, (tokens != pad_id).sum(axis=1) if run.dataset.padded else None),
    )


def gpt2_judge(options: ConfigDict, config: ConfigDict, written: Tokenizer) -> Judge:
    """GPT-2, for which samples of the tokenizer `written` are tokenized again, as in the public MDLM code.

    Raises:
      ValueError: for missing files, or a tokenizer and weights of different models.
    """
    folder = Path(options.checkpoint)
    try:
        tokenizer: Tokenizer = gpt2(options.tokenizer_path)
    except ValueError as error:
        raise ValueError(str(error).replace("data.tokenizer_path", "judge.tokenizer_path")) from None
    eos = tokenizer.eos_id
    assert eos is not None
    net = network(options.checkpoint, "judge.checkpoint")
    if tokenizer.vocab_size != net.vocab_size:
        raise ValueError(
            f"judge.tokenizer_path: {options.tokenizer_path} has {tokenizer.vocab_size} tokens, the weights in "
            f"{folder} have {net.vocab_size}; pass the files of one model"
        )
    length = min(net.context, config.sample.length or config.data.length, 1024)
    mesh = make_mesh(**config.mesh)
    params = load_weights(folder / "weights", initializer(net), mesh)

    def apply(params: Params, tokens: Int[Array, "B L"], method: str | None = None) -> Any:
        return net.apply({"params": params}, tokens, method=method)

    @jax.jit
    def log_probs(params, tokens):
        logits = apply(params, tokens)
        # The first token is not predicted, so its log probability is padding.
        return jnp.pad(target_log_probs(logits[:, :-1], tokens[:, 1:], net.vocab_size), ((0, 0), (1, 0)))

    features = jax.jit(lambda params, tokens: apply(params, tokens, method="features"))
    return Judge(
        name=f"GPT-2 ({net.hidden} wide, {net.blocks} blocks)",
        eos=tokenizer.eos_id,
        log_probs=lambda tokens: log_probs(params, tokens),
        features=lambda tokens: features(params, tokens),
        tokens=lambda tokens: retokenize(
            [written.pieces(row) for row in tokens], tokenizer.encode, length=length, eos=eos, batch_size=options.batch
        ),
    )
