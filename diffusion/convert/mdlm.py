"""Public checkpoints of `DiT`: MDLM, its autoregressive baseline, MDM-Prime on text, and G-Star with its predictor.

They have the names of MDLM, with other embeddings and heads (see `JOINED`), below a prefix of the training code.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion.convert.files import read_tensors
from diffusion.convert.model_config import ModelConfig, read_config
from diffusion.convert.template import LEAVES, fill, shape_of
from diffusion.nets.dit import DiT
from diffusion.nets.error_predictor import ErrorPredictor
from diffusion.nets.subtoken_embedding import SubtokenEmbedding
from diffusion.types import Params

Tensors = dict[str, np.ndarray]
# Modules and single leaves of `DiT`, and their names in files.
NAMES = {
    "embedding": "vocab_embed.embedding",
    "embedder/table": "vocab_embed.embedding",
    "time_embedder/first": "sigma_map.mlp.0",
    "time_embedder/second": "sigma_map.mlp.2",
    "blocks/modulation": "blocks.{}.adaLN_modulation",
    "blocks/norm1": "blocks.{}.norm1",
    "blocks/qkv": "blocks.{}.attn_qkv",  # columns in the order of DiT: (three, heads, head width)
    "blocks/attention_out": "blocks.{}.attn_out",
    "blocks/norm2": "blocks.{}.norm2",
    "blocks/mlp_in": "blocks.{}.mlp.0",
    "blocks/mlp_out": "blocks.{}.mlp.2",
    "head/modulation": "output_layer.adaLN_modulation",
    "head/norm": "output_layer.norm_final",
    "head/linear": "output_layer.linear",
}
# Tensors that other codes hold in parts or under another name: MDM-Prime's tables of the places of sub-tokens, and
# G-Star's, where padding, the last row, is a tensor of its own.
JOINED = {
    "vocab_embed.weight.weight": ("vocab_embed.embedding", ()),
    "vocab_embed.embeddings": ("vocab_embed.embedding", ("vocab_embed.new_embedding",)),
    "output_layer.linear.weight": ("output_layer.linear.weight", ("output_layer.linear_extra.weight",)),
    "output_layer.linear.bias": ("output_layer.linear.bias", ("output_layer.linear_extra.bias",)),
}
BUFFERS = ("rotary_emb.inv_freq",)
# Prefixes of the network, of MDM-Prime's codec, and of G-Star's predictor and the frozen denoiser in the same file.
NETWORK, CODEC, PREDICTOR, FROZEN = "backbone.", "wrapped_encoder.", "net.dit.", "denoiser.backbone."


class Checkpoint(NamedTuple):
    """Arguments of the network, its parameters, and what else a file says.

    `sizes` are those of `DiT`, and for sub-tokens those of `SubtokenEmbedding`. The classes are tokens and the mask,
    and, where `padded`, padding. `permutation` is that of the codes of MDM-Prime-v2. With an error predictor `kind` is
    its kind, and the parameters are {"denoiser", "errors"}.
    """

    sizes: dict[str, Any]
    params: Params
    padded: bool = False
    permutation: np.ndarray | None = None
    kind: str = "none"


def name_of(keys: tuple[str, ...]) -> str:
    """Return the name of a tensor by its path in the parameters of `DiT`."""
    *modules, leaf = keys
    path = "/".join(keys)
    return NAMES[path] if path in NAMES else f"{NAMES['/'.join(modules)]}.{LEAVES.get(leaf, leaf)}"


def joined(tensors: Mapping[str, np.ndarray], prefix: str) -> Tensors:
    """Return the tensors below a prefix, without it and under the names of MDLM."""
    found = {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
    for first, (name, others) in JOINED.items():
        if first in found and (first != name or others[0] in found) and all(each in found for each in others):
            parts = [found.pop(first), *(found.pop(each) for each in others)]
            if len({(each.ndim, each.shape[1:]) for each in parts}) > 1 or not parts[0].ndim:
                shapes = ", ".join(str(each.shape) for each in parts)
                raise ValueError(f"checkpoint: the parts of {first} have shapes {shapes}; is it this kind of file?")
            found[name] = np.concatenate(parts)
    return found


def load_mdlm(path: str | Path, heads: int | None = None, denoiser: str | Path = "") -> Checkpoint:
    """Return a checkpoint of MDLM, its autoregressive baseline, MDM-Prime on text, or G-Star.

    The baseline, without tensors of adaLN, is causal. Sub-tokens show by the shape of their table. A file of G-Star's
    error predictor also holds the frozen denoiser that it learned from, in place of which `denoiser` is another file.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: for a tensor that is missing, not used or has another shape, a wrong number of heads, or a predictor
        of other sizes than its denoiser.
    """
    tensors = read_tensors(path)
    if any(name.startswith(PREDICTOR) for name in tensors):
        return with_predictor(tensors, path, heads, denoiser)
    if denoiser:
        raise ValueError(f"--denoiser: '{path}' has no error predictor to go with it; leave it out")
    codec = {name: tensors.pop(name) for name in list(tensors) if name.startswith(CODEC)}
    prefix = NETWORK if any(name.startswith(NETWORK) for name in tensors) else ""
    check_all_below((prefix,), tensors, path)
    permutation = codec.get(f"{CODEC}perm")
    found = network(tensors, prefix, path, heads)
    return found if permutation is None else found._replace(permutation=permutation.astype(np.int64))


def with_predictor(tensors: Tensors, path: str | Path, heads: int | None, denoiser: str | Path) -> Checkpoint:
    """Return G-Star's predictor beside its denoiser; one whose blocks are those of its denoiser is a head on them."""
    # The head of the predictor is in the file twice, and a frozen language model may be, too.
    check_all_below((PREDICTOR, FROZEN, "net.output_layer.", "_ar_model."), tensors, path)
    if denoiser:
        base = load_mdlm(denoiser, heads)
    elif any(name.startswith(FROZEN) for name in tensors):
        base = network(tensors, FROZEN, path, heads)
    else:
        raise ValueError(f"checkpoint: '{path}' has a predictor and no denoiser; pass --denoiser=FILE")
    if "digits" in base.sizes or not base.sizes["adaln"]:
        raise ValueError(
            f"--denoiser: '{denoiser}' is no masked diffusion model of whole tokens; pass the predictor's own"
        )
    errors = joined(tensors, PREDICTOR)
    check_heads(errors, base.sizes["hidden"], base.sizes["heads"], path)
    blocks = count_blocks(errors, path)
    if blocks not in (1, base.sizes["blocks"]):
        raise ValueError(
            f"checkpoint: the predictor of '{path}' has {blocks} blocks and its denoiser {base.sizes['blocks']}; one "
            "with 1 block or all of them is supported"
        )
    kind = "full" if blocks == base.sizes["blocks"] else "block"
    template = shapes(ErrorPredictor(kind, DiT(**base.sizes)).net)
    params = fill(template, without_buffers(errors), name_of, str(path))
    trunk = {name: part for name, part in params.items() if name != "head"}
    if kind == "full" and same(trunk, {name: base.params[name] for name in trunk}):
        kind, params = "head", {"head": params["head"]}
    return base._replace(params={"denoiser": base.params, "errors": params}, kind=kind)


def network(every: Tensors, prefix: str, path: str | Path, heads: int | None) -> Checkpoint:
    """Return a network, whose tensors are those below a prefix, with sizes by their shapes."""
    padded, tensors = f"{prefix}vocab_embed.new_embedding" in every, joined(every, prefix)

    def shape(name: str) -> tuple[int, ...]:
        return shape_of(tensors, name, str(path))

    blocks = count_blocks(tensors, path)
    rows, width = shape("vocab_embed.embedding")
    vocab_size, hidden = shape("output_layer.linear.weight")
    adaln = "blocks.0.adaLN_modulation.weight" in tensors
    stored = beside(path).number("n_heads", 0) if "n_heads" in beside(path).fields else None
    sizes: dict[str, Any] = dict(
        vocab_size=vocab_size,
        hidden=hidden,
        blocks=blocks,
        heads=check_heads(tensors, hidden, heads or stored, path),
        mlp_ratio=shape("blocks.0.mlp.0.weight")[0] // hidden,
        adaln=adaln,
    )
    if adaln:
        sizes["cond_dim"] = shape("sigma_map.mlp.0.weight")[0]
    table = embedding_of(rows, width, vocab_size, hidden)
    embedder = SubtokenEmbedding(hidden=hidden, **table) if table else None
    template = shapes(DiT(**sizes, embedder=embedder), table.get("digits", 1))
    return Checkpoint(sizes | table, fill(template, without_buffers(tensors), name_of, str(path)), padded)


def embedding_of(rows: int, width: int, vocab_size: int, hidden: int) -> dict[str, Any]:
    """Return arguments of `SubtokenEmbedding` for a table of this shape; {} for a table of whole tokens.

    A table of l sub-tokens of b values has b + 1 rows, or l (b + 1) where each place has its own, and the width
    hidden / l, or hidden where the embeddings are summed; b is the smallest number with b^l >= `vocab_size`.

    Raises:
      ValueError: for a table that fits no number of sub-tokens.
    """
    if (rows, width) == (vocab_size, hidden):
        return {}
    summed, found = width == hidden, []
    for digits in range(2, (vocab_size - 1).bit_length() + 1):
        for tables in (1, digits):
            base = rows // tables - 1
            smallest = base >= 2 and (base - 1) ** digits < vocab_size <= base**digits
            if smallest and rows % tables == 0 and (summed or width * digits == hidden):
                found.append(dict(base=base, digits=digits, merge="sum" if summed else "concat", shared=tables == 1))
    if len(found) == 1:
        return found[0]
    fits = " or ".join(str(each["digits"]) for each in found)
    raise ValueError(
        f"checkpoint: an embedding of {rows} x {width} does not fit {vocab_size} outputs of width {hidden}"
        + (f" for one number of sub-tokens alone, but {fits}" if fits else "; is this the right kind of checkpoint?")
    )


def check_heads(tensors: Tensors, hidden: int, heads: int | None, path: str | Path) -> int:
    """Return the number of heads by the frequencies of rotary positions, of which a head has half its width.

    Raises:
      ValueError: if `heads` is another number, if there are no frequencies and no `heads`, or for other frequencies.
    """
    frequencies = tensors.get("rotary_emb.inv_freq")
    if frequencies is None:
        if not heads:
            raise ValueError(
                f"--heads: '{path}' does not say how many; pass --heads={max(1, hidden // 64)} as published"
            )
        found = heads
    else:
        width = 2 * frequencies.size
        found = hidden // width if width else 0
        usual = 10000.0 ** (-np.arange(0, width, 2) / max(width, 1))
        if not found or frequencies.shape != usual.shape or not np.allclose(frequencies, usual, rtol=1e-2):
            raise ValueError(
                f"checkpoint: rotary_emb.inv_freq of '{path}' is not 10000^(-2i/{width}); it is not supported"
            )
    if heads not in (None, found) or hidden % found or hidden // found % 2:
        raise ValueError(
            f"--heads: {heads or found} heads do not fit '{path}' of width {hidden}; pass {found}, or leave it out"
        )
    return found


def count_blocks(tensors: Tensors, path: str | Path) -> int:
    """Return the number of blocks; raises ValueError for none."""
    count = sum(name.startswith("blocks.") and name.endswith(".attn_qkv.weight") for name in tensors)
    if not count:
        raise ValueError(f"checkpoint: '{path}' has no tensor 'blocks.0.attn_qkv.weight'; is it an MDLM checkpoint?")
    return count


def beside(path: str | Path) -> ModelConfig:
    """Return config.json of the folder of a checkpoint, without fields where there is none."""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    found = (folder / "config.json").is_file()
    return read_config(folder / "config.json", (), "") if found else ModelConfig(folder, {})


def shapes(net: DiT, positions: int = 1) -> Params:
    """Return the shapes of the parameters of a network that reads a number of ids per token."""
    return jax.eval_shape(net.init, jax.random.key(0), np.zeros((1, positions), np.int32))["params"]


def without_buffers(tensors: Tensors) -> Tensors:
    """Return the tensors that are parameters."""
    return {name: each for name, each in tensors.items() if name not in BUFFERS}


def same(one: Params, other: Params) -> bool:
    """Return whether parameters are equal."""
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


def check_all_below(prefixes: tuple[str, ...], tensors: Tensors, path: str | Path) -> None:
    """Raise ValueError for tensors below none of the prefixes."""
    if other := [name for name in tensors if not name.startswith(prefixes)]:
        raise ValueError(
            f"weights: '{path}' has {len(other)} tensors that the network does not use, such as '{min(other)}'; is it "
            "this kind of model?"
        )
