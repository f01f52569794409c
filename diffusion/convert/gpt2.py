"""Conversion of public GPT-2 checkpoints, with the names of Hugging Face, to parameters of `GPT2`."""

from pathlib import Path
from typing import Any

import numpy as np

from diffusion.convert.files import TensorSource, check_params, read_tensors
from diffusion.nets.gpt2 import GPT2
from diffusion.types import Params


def load_gpt2(path: str | Path, heads: int | None = None) -> tuple[dict[str, Any], Params]:
    """Return (arguments of `GPT2`, {"params": ...}) for a checkpoint with or without the prefix "transformer.".

    Sizes are those of the tensors. Shapes do not determine `heads`, whose default is hidden / 64.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a tensor is missing, not used, or has another shape than the network.
    """
    source = TensorSource(read_tensors(path), prefix="transformer.")
    vocab_size, hidden = source.shape("wte.weight")
    blocks = source.count("h.{}.attn.c_attn.weight")
    if not blocks:
        raise ValueError("checkpoint: no tensor 'h.0.attn.c_attn.weight'; is this a GPT-2 checkpoint?")
    sizes: dict[str, Any] = dict(
        vocab_size=vocab_size,
        context=source.shape("wpe.weight")[0],
        hidden=hidden,
        blocks=blocks,
        heads=heads if heads is not None else max(1, hidden // 64),
    )
    embedding = source.take("wte.weight")
    # GPT-2 ties the output layer to the embedding, but some files contain both.
    if "lm_head.weight" in source.tensors and not np.array_equal(source.take("lm_head.weight"), embedding):
        raise ValueError("checkpoint: lm_head.weight differs from wte.weight; GPT-2 ties them")

    # Hugging Face stores the weights of linear layers as [in, out], without a transposition.
    def stacked(name: str, weight: str) -> dict:
        tensors = {weight: f"h.{{}}.{name}.weight", "bias": f"h.{{}}.{name}.bias"}
        return {part: source.stack(pattern, blocks) for part, pattern in tensors.items()}

    params = {
        "embedding": embedding,
        "positions": source.take("wpe.weight"),
        "blocks": {
            "norm1": stacked("ln_1", "scale"),
            "qkv": stacked("attn.c_attn", "kernel"),
            "attention_out": stacked("attn.c_proj", "kernel"),
            "norm2": stacked("ln_2", "scale"),
            "mlp_in": stacked("mlp.c_fc", "kernel"),
            "mlp_out": stacked("mlp.c_proj", "kernel"),
        },
        "norm_final": {"scale": source.take("ln_f.weight"), "bias": source.take("ln_f.bias")},
    }
    source.finish()
    check_params(GPT2(**sizes), {"params": params})
    return sizes, {"params": params}
