"""Conversion of public checkpoints of MDLM, its autoregressive baseline, and MDM-Prime to parameters of `DiT`."""

from pathlib import Path
from typing import Any

from diffusion.convert.files import TensorSource, check_params, read_tensors
from diffusion.nets.dit import DiT
from diffusion.nets.subtoken_embedding import SubtokenEmbedding
from diffusion.types import Params


def load_mdlm(path: str | Path, heads: int | None = None) -> tuple[dict[str, Any], Params]:
    """Return (sizes, {"params": ...}) for a checkpoint of MDLM, its autoregressive baseline, or MDM-Prime on text.

    Sizes are those of the tensors, and arguments of `DiT` but for `digits`, the number l of sub-tokens of MDM-Prime,
    whose table of b + 1 rows has the width hidden / l; there is no `digits` for whole tokens. Shapes do not determine
    `heads`, whose default is hidden / 64. The baseline, without tensors of adaLN, is causal.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a tensor is missing, not used, or has another shape than the network.
    """
    source = TensorSource(read_tensors(path), prefix="backbone.")
    rows, width = source.shape("vocab_embed.embedding")
    blocks = source.count("blocks.{}.attn_qkv.weight")
    if not blocks:
        raise ValueError("checkpoint: no tensor 'blocks.0.attn_qkv.weight'; is this an MDLM checkpoint?")
    vocab_size, hidden = source.shape("output_layer.linear.weight")[0], source.shape("blocks.0.attn_qkv.weight")[1]
    digits, other = divmod(hidden, width)
    if other or (digits == 1 and rows != vocab_size):
        raise ValueError(
            f"checkpoint: an embedding of {rows} x {width} does not fit {vocab_size} outputs of width {hidden}; is "
            "this the right kind of checkpoint?"
        )
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

    table = source.take("vocab_embed.embedding")
    # The columns of attn_qkv have the order of DiT, (three, heads, head width).
    params = {
        **({"embedding": table} if digits == 1 else {"embedder": {"table": table}}),
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
    embedder = SubtokenEmbedding(rows - 1, digits, hidden) if digits > 1 else None
    check_params(DiT(**sizes, embedder=embedder), {"params": params}, positions=digits)
    return sizes | ({"digits": digits} if digits > 1 else {}), {"params": params}
