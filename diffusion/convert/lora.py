"""Low-rank changes of weights (LoRA, Hu et al., arXiv 2106.09685, section 4.1), added to the weights of a U-Net.

A file holds, for each layer that it changes, `down` [r, in], `up` [out, r], and often a number alpha, in one of the
layouts of kohya ("lora_unet_" and the name with "_" for "."), of peft, or of diffusers.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

# The ends of names, with the factor that they hold.
ENDINGS = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".alpha": "alpha",
}
KOHYA = "lora_unet_"
PREFIXES = ("base_model.model.", "unet.")
OTHERS = ("lora_te", "text_encoder", "te_", "te1_", "te2_")
# The layers of attention in the oldest files of diffusers are "attn1.processor.to_q_lora", and the last "to_out_lora".
PROCESSOR = re.compile(r"\.processor\.(to_q|to_k|to_v|to_out)$")


class Factors(NamedTuple):
    """The names, in the file, of the factors of one layer; alpha may be missing."""

    down: str
    up: str
    alpha: str | None


class FusedTensors(Mapping):
    """Tensors of a network in which those of `changes`, by name, are changed when they are asked for."""

    def __init__(
        self,
        tensors: Mapping[str, np.ndarray],
        lora: Mapping[str, np.ndarray],
        changes: Mapping[str, Factors],
        scale: float,
        source: str,
    ):
        self.tensors, self.lora, self.changes, self.scale, self.source = tensors, lora, changes, scale, source

    def __getitem__(self, name: str) -> np.ndarray:
        weight = self.tensors[name]
        if name not in self.changes:
            return weight
        down_name, up_name, alpha_name = self.changes[name]
        down, up = (np.asarray(self.lora[each], np.float32) for each in (down_name, up_name))
        rank = len(down)
        # A linear map and a 1 x 1 convolution may stand for each other.
        window = down.shape[2:] if down.ndim == 4 else ()
        wanted = weight.shape[:2] + (weight.shape[2:] if weight.shape[2:] != (1, 1) else ())
        found = (up.shape[0], down.shape[1], *(window if window != (1, 1) else ()))
        if found != wanted or up.size != up.shape[0] * rank:
            raise ValueError(
                f"lora: '{down_name}' of '{self.source}' has shape {down.shape} and its pair {up.shape}, which do not "
                f"fit the weight's {weight.shape}; this LoRA is for another base model"
            )
        alpha = rank if alpha_name is None else float(np.asarray(self.lora[alpha_name], np.float32).reshape(()))
        change = (up.reshape(len(up), rank) @ down.reshape(rank, -1)).reshape(weight.shape)
        return (np.asarray(weight, np.float32) + np.float32(self.scale * alpha / rank) * change).astype(weight.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def with_lora(
    tensors: Mapping[str, np.ndarray], lora: Mapping[str, np.ndarray], scale: float, source: str = "lora"
) -> FusedTensors:
    """Return the tensors of a U-Net with W + scale (alpha / r) up down in place of W for each weight of the LoRA.

    Weights have the names and the layout of diffusers, [out, in] or [out, in, height, width]. The sum is computed in
    float32, and stored in the type of W. A missing alpha is r. `source` names the file in errors.

    Raises:
      ValueError: naming the key, if one is not known, matches no weight, has no pair, or stands for the same factor as
        another one; when a weight is asked for, if its shape does not fit.
    """
    # The "_" of kohya's names may be a "." or a "_", and are resolved by the names of the network.
    flat = {name.removesuffix(".weight").replace(".", "_"): name for name in tensors if name.endswith(".weight")}
    layers: dict[str, dict[str, str]] = {}
    for key in sorted(lora):
        name, factor = _weight(key, flat, tensors, source)
        if (other := layers.setdefault(name, {}).setdefault(factor, key)) != key:
            raise ValueError(f"lora: '{other}' and '{key}' of '{source}' are the same factor; remove one of them")
    for name, factors in layers.items():
        if "down" not in factors or "up" not in factors:
            key = next(iter(factors.values()))
            raise ValueError(f"lora: '{key}' of '{source}' has no pair for '{name}'; the file is not complete")
    changes = {name: Factors(each["down"], each["up"], each.get("alpha")) for name, each in layers.items()}
    return FusedTensors(tensors, lora, changes, scale, source)


def _weight(key: str, flat: Mapping[str, str], tensors: Mapping[str, np.ndarray], source: str) -> tuple[str, str]:
    """Return the name of the weight that a key changes, and the name of the factor."""
    if key.startswith(OTHERS):
        raise ValueError(f"lora: '{key}' of '{source}' changes a text encoder, which is not supported; leave it out")
    ending = next((each for each in ENDINGS if key.endswith(each)), None)
    if ending is None:
        raise ValueError(f"lora: '{key}' of '{source}' is of a kind that is not supported; use a LoRA of down and up")
    layer = key.removesuffix(ending)
    if layer.startswith(KOHYA):
        name = flat.get(layer.removeprefix(KOHYA), "")
    else:
        for prefix in PREFIXES:
            layer = layer.removeprefix(prefix)
        layer = PROCESSOR.sub(lambda found: f".{found[1]}" + (".0" if found[1] == "to_out" else ""), layer)
        name = f"{layer}.weight"
    if name not in tensors:
        raise ValueError(f"lora: '{key}' of '{source}' matches no weight of the network; it is for another base model")
    return name, ENDINGS[ending]
