"""Public GPT-2 checkpoints, with the names of Hugging Face, as parameters of `GPT2`."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion.convert.files import is_buffer, read_tensors
from diffusion.convert.mdlm import beside
from diffusion.convert.template import LEAVES, fill, shape_of
from diffusion.nets.gpt2 import GPT2
from diffusion.types import Params

# Modules and single leaves of `GPT2`, and their names in files.
NAMES = {
    "embedding": "wte.weight",
    "positions": "wpe.weight",
    "blocks/norm1": "h.{}.ln_1",
    "blocks/qkv": "h.{}.attn.c_attn",
    "blocks/attention_out": "h.{}.attn.c_proj",
    "blocks/norm2": "h.{}.ln_2",
    "blocks/mlp_in": "h.{}.mlp.c_fc",
    "blocks/mlp_out": "h.{}.mlp.c_proj",
    "norm_final": "ln_f",
}


def name_of(keys: tuple[str, ...]) -> str:
    """Return the name of a tensor by its path in the parameters of `GPT2`."""
    path, _, leaf = "/".join(keys).rpartition("/")
    return f"{NAMES[path]}.{LEAVES.get(leaf, leaf)}" if path else NAMES[leaf]


def load_gpt2(path: str | Path, heads: int | None = None) -> tuple[dict[str, Any], Params]:
    """Return (arguments of `GPT2`, {"params": ...}) for a checkpoint with or without the prefix "transformer.".

    Sizes are those of the tensors. Shapes do not determine `heads`, whose default is n_head of the config.json beside
    the weights, or hidden / 64, as published.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a tensor is missing, not used, or has another shape than the network.
    """
    found = {
        name.removeprefix("transformer."): each for name, each in read_tensors(path).items() if not is_buffer(name)
    }
    blocks = sum(name.endswith(".attn.c_attn.weight") for name in found)
    names = ("wte.weight", "wpe.weight", "h.0.attn.c_attn.weight")
    (vocab_size, hidden), (context, _), _ = (shape_of(found, name, str(path)) for name in names)
    heads = heads or beside(path).number("n_head", max(1, hidden // 64))
    if hidden % heads:
        raise ValueError(f"--heads: {heads} heads do not divide the width {hidden} of '{path}'; leave it out")
    # GPT-2 ties the output layer to the embedding, but some files contain both.
    if "lm_head.weight" in found and not np.array_equal(found.pop("lm_head.weight"), found["wte.weight"]):
        raise ValueError("checkpoint: lm_head.weight differs from wte.weight; GPT-2 ties them")
    # Hugging Face stores the weights of these linear layers as [in, out].
    found = {name: each.T if ".c_" in name else each for name, each in found.items()}
    sizes: dict[str, Any] = dict(vocab_size=vocab_size, context=context, hidden=hidden, blocks=blocks, heads=heads)
    template = jax.eval_shape(GPT2(**sizes).init, jax.random.key(0), np.zeros((1, 1), np.int32))["params"]
    return sizes, {"params": fill(template, found, name_of, str(path))}
