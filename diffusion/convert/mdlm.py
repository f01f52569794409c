"""Conversion of public MDLM checkpoints (kuleshov-group/mdlm-owt, or Lightning files) to parameters of `DiT`."""

from pathlib import Path
from typing import Any

from diffusion.convert.files import TensorSource, check_params, read_tensors
from diffusion.nets.dit import DiT
from diffusion.types import Params


def load_mdlm(path: str | Path, heads: int | None = None) -> tuple[dict[str, Any], Params]:
    """Return (arguments of `DiT`, {"params": ...}) for a checkpoint of MDLM or of its autoregressive baseline.

    Sizes are those of the tensors. Shapes do not determine `heads`, whose default is hidden / 64. The baseline, without
    tensors of adaLN, has causal=True.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a tensor is missing, not used, or has another shape than the network.
    """
    source = TensorSource(read_tensors(path), prefix="backbone.")
    vocab_size, hidden = source.shape("vocab_embed.embedding")
    blocks = source.count("blocks.{}.attn_qkv.weight")
    if not blocks:
        raise ValueError("checkpoint: no tensor 'blocks.0.attn_qkv.weight'; is this an MDLM checkpoint?")
    adaln = "blocks.0.adaLN_modulation.weight" in source.tensors
    sizes: dict[str, Any] = dict(
        vocab_size=vocab_size,
        hidden=hidden,
        blocks=blocks,
        heads=heads if heads is not None else max(1, hidden // 64),
        mlp_ratio=source.shape("blocks.0.mlp.0.weight")[0] // hidden,
        adaln=adaln,
    )
    if adaln:
        sizes["cond_dim"] = source.shape("sigma_map.mlp.0.weight")[0]

    def linear(name: str, *, bias: bool = True) -> dict:
        # PyTorch stores weights as [out, in].
        kernel = {"kernel": source.take(f"{name}.weight", transpose=True)}
        return kernel | ({"bias": source.take(f"{name}.bias")} if bias else {})

    def stacked(name: str, *, bias: bool = True) -> dict:
        pattern = f"blocks.{{}}.{name}"
        kernel = {"kernel": source.stack(f"{pattern}.weight", blocks, transpose=True)}
        return kernel | ({"bias": source.stack(f"{pattern}.bias", blocks)} if bias else {})

    # The columns of attn_qkv have the order of DiT, (three, heads, head width).
    params = {
        "embedding": source.take("vocab_embed.embedding"),
        "blocks": {
            "norm1": {"scale": source.stack("blocks.{}.norm1.weight", blocks)},
            "qkv": stacked("attn_qkv", bias=False),
            "attention_out": stacked("attn_out", bias=False),
            "norm2": {"scale": source.stack("blocks.{}.norm2.weight", blocks)},
            "mlp_in": stacked("mlp.0"),
            "mlp_out": stacked("mlp.2"),
        },
        "head": {
            "norm": {"scale": source.take("output_layer.norm_final.weight")},
            "linear": linear("output_layer.linear"),
        },
    }
    if adaln:
        params["blocks"]["modulation"] = stacked("adaLN_modulation")
        params["head"]["modulation"] = linear("output_layer.adaLN_modulation")
        params["time_embedder"] = {"first": linear("sigma_map.mlp.0"), "second": linear("sigma_map.mlp.2")}
    source.finish()
    check_params(DiT(**sizes), {"params": params})
    return sizes, {"params": params}
