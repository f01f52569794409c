"""GPT-2 with converted weights, which judges samples (`judge.name`) and labels tokens (`predictor.judge`)."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion.nets.gpt2 import GPT2
from diffusion.types import MaskedProcess, Params
from experiments.families.base import System


def network(folder: str, field: str) -> GPT2:
    """The network of the weights that `launch.py convert --from=gpt2` wrote to `folder`, which `field` names.

    Raises:
      ValueError: for a folder without such weights.
    """
    path = Path(folder) / "config.json"
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):  # of a damaged file
        stored = json.loads(path.read_text()) if folder and path.is_file() else {}
        if stored.get("layout") == "gpt2":
            return GPT2(**stored["sizes"])
    raise ValueError(
        f"{field}: {folder!r} holds no converted weights; write them with "
        "`launch.py convert --from=gpt2 --checkpoint=FILE --workdir=DIR`"
    )


def initializer(net: GPT2) -> Callable[[jax.Array], Params]:
    """`init(key)` of the network's parameters."""
    return lambda key: net.init(key, jnp.zeros((1, 2), jnp.int32))["params"]


def label_judge(config: ConfigDict, process: MaskedProcess) -> System:
    """GPT-2 as the judge of an error predictor: the weights of `predictor.judge_checkpoint`, GPT-2 small without them.

    The logits of the first token, which GPT-2 does not predict, are 0. Padding reads as the last token, which is
    GPT-2's end of text, as in the public code of G-Star (arXiv 2510.08369).
    """
    folder = config.predictor.judge_checkpoint
    net = network(folder, "predictor.judge_checkpoint") if folder else GPT2()

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        # The first symbol of these inputs stands for the start of the text.
        logits: Any = net.apply({"params": params}, jnp.minimum(noisy[:, 1:], net.vocab_size - 1))
        return jnp.pad(logits, ((0, 0), (1, 0), (0, 0)))

    return System(
        net=net,
        process=process,
        denoiser=denoiser,
        init=initializer(net),
        length=config.data.length,
        classes=net.vocab_size,
    )


def check_label_judge(config: ConfigDict, vocabulary: int = 0) -> None:
    """Raise ValueError for missing weights, or tokens or lengths that these cannot read; `vocabulary` 0: not known."""
    options = config.predictor
    if options.kind == "none" or (options.labels, options.judge) != ("likelihood", "gpt2"):
        return
    if config.data.tokenizer != "gpt2":
        raise ValueError(
            f"predictor.judge: gpt2 reads GPT-2's tokens, not data.tokenizer={config.data.tokenizer}; name a causal row"
        )
    net = network(options.judge_checkpoint, "predictor.judge_checkpoint")
    if vocabulary and vocabulary != net.vocab_size:
        raise ValueError(
            f"predictor.judge_checkpoint: {options.judge_checkpoint} has {net.vocab_size} tokens, the data have "
            f"{vocabulary}; pass weights and tokenizer of one model"
        )
    if config.data.length - 1 > net.context:
        raise ValueError(f"data.length: {config.data.length} tokens exceed the {net.context} + 1 of predictor.judge")
