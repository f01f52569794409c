"""Conversion of public GPT-2 checkpoints, with the names of Hugging Face, to parameters of `GPT2`."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.convert.files import TensorSource, check_tree, read_tensors
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

    def norm(name: str) -> dict:
        weight, bias = f"h.{{}}.{name}.weight", f"h.{{}}.{name}.bias"
        return {"scale": source.stack(weight, blocks), "bias": source.stack(bias, blocks)}

    def linear(name: str) -> dict:
        # Hugging Face stores these weights as [in, out], without a transposition.
        weight, bias = f"h.{{}}.{name}.weight", f"h.{{}}.{name}.bias"
        return {"kernel": source.stack(weight, blocks), "bias": source.stack(bias, blocks)}

    params = {
        "embedding": embedding,
        "positions": source.take("wpe.weight"),
        "blocks": {
            "norm1": norm("ln_1"),
            "qkv": linear("attn.c_attn"),
            "attention_out": linear("attn.c_proj"),
            "norm2": norm("ln_2"),
            "mlp_in": linear("mlp.c_fc"),
            "mlp_out": linear("mlp.c_proj"),
        },
        "norm_final": {"scale": source.take("ln_f.weight"), "bias": source.take("ln_f.bias")},
    }
    source.finish()
    model = GPT2(**sizes)
    tokens = jnp.zeros((1, 1), jnp.int32)
    expected = jax.eval_shape(lambda: model.init(jax.random.key(0), tokens))
    check_tree({"params": params}, expected)
    return sizes, {"params": params}
