"""Public checkpoints of CLIP as parameters: the layouts of Hugging Face and of OpenAI, OpenCLIP and HPS.

The second is renamed to the first, with fused projections split and [in, out] matrices transposed.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.convert.template import dotted, fill
from diffusion.nets.sd.aesthetic import Aesthetic
from diffusion.nets.sd.clip import CLIP, CLIPText, CLIPVision
from diffusion.types import Params

Tensors = Mapping[str, np.ndarray]
TOWERS = ("text_model", "vision_model")
PROJECTIONS = ("text_projection", "visual_projection")
# Scale of the loss, buffers, and the sizes that OpenAI's files store; none is a parameter of the encoders.
UNUSED = ("logit_scale", "logit_bias", "attn_mask", "input_resolution", "context_length", "vocab_size", "position_ids")
# Names outside of the layers in OpenCLIP's layout.
RENAMED = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
}
BLOCKS = {"transformer.resblocks.": "text_model", "visual.transformer.resblocks.": "vision_model"}
PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def _of_layer(tower: str, name: str, value: np.ndarray) -> dict[str, np.ndarray]:
    """Return the tensors of "3.attn.in_proj_weight" and the like under their names in Hugging Face's layout."""
    number, _, rest = name.partition(".")
    layer = f"{tower}.encoder.layers.{number}"
    if rest in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = rest.removeprefix("attn.in_proj_")
        parts = np.split(value, 3)
        return {f"{layer}.self_attn.{part}_proj.{kind}": each for part, each in zip("qkv", parts, strict=True)}
    part, _, kind = rest.rpartition(".")
    return {f"{layer}.{PARTS.get(part, part)}.{kind}": value}


def from_open_clip(tensors: Tensors) -> dict[str, np.ndarray]:
    """Return the tensors of OpenCLIP's layout in that of Hugging Face; a tensor it does not know keeps its name."""
    renamed: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        block = next((prefix for prefix in BLOCKS if name.startswith(prefix)), None)
        if block is not None:
            renamed |= _of_layer(BLOCKS[block], name.removeprefix(block), np.asarray(value))
        else:
            matrix = name in ("text_projection", "visual.proj")
            renamed[RENAMED.get(name, name)] = np.asarray(value).T if matrix else value
    return renamed


def canonical(tensors: Mapping[str, Any], tower: str = "text_model") -> dict[str, np.ndarray]:
    """Return the tensors of a checkpoint in either layout under Hugging Face's names, without unused entries.

    The tensors may be under the key "state_dict" and have the prefix "module.". Files of a single encoder may leave out
    its prefix, which is `tower`.
    """
    state = tensors.get("state_dict", tensors)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    state = {name: value for name, value in state.items() if name.rpartition(".")[2] not in UNUSED}
    if any(name.startswith(tuple(BLOCKS)) for name in state):
        return from_open_clip(state)
    if any(name.startswith(TOWERS) for name in state):
        return state
    return {name if name.startswith(PROJECTIONS) else f"{tower}.{name}": value for name, value in state.items()}


def name_of(keys: tuple[str, ...]) -> str:
    """Return the name of a tensor in Hugging Face's layout by its path in the parameters of `CLIP`."""
    return dotted(keys[1:] if keys[1] in PROJECTIONS else keys, loops=("layers",))


def name_of_text(keys: tuple[str, ...]) -> str:
    """Return the name of a tensor in Hugging Face's layout by its path in the parameters of `CLIPText`."""
    return name_of(("text_model", *keys))


def name_of_vision(keys: tuple[str, ...]) -> str:
    """Return the name of a tensor in Hugging Face's layout by its path in the parameters of `CLIPVision`."""
    return name_of(("vision_model", *keys))


def _shapes(net: CLIPText | CLIPVision | CLIP) -> Params:
    def ids(net: CLIPText):
        return jnp.zeros((1, net.length), jnp.int32)

    def pixels(net: CLIPVision):
        return jnp.zeros((1, net.image, net.image, 3))

    if isinstance(net, CLIP):
        inputs = (pixels(net.vision_model), ids(net.text_model))
    else:
        inputs = (ids(net) if isinstance(net, CLIPText) else pixels(net),)
    return jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]


def load_clip_text(net: CLIPText, tensors: Mapping[str, Any], source: str) -> Params:
    """Return {"params": ...} of a text encoder from a checkpoint of it, or of both encoders, in either layout.

    Each tensor keeps its type. Without `net.projection`, that of the checkpoint is not used. `source` names the file.

    Raises:
      ValueError: naming the first tensor that is missing, has another shape, or is not used.
    """
    unused = ("vision_model.", "visual_projection.", *(("text_projection.",) if net.projection is None else ()))
    found = canonical(tensors, "text_model")
    used = {name: value for name, value in found.items() if not name.startswith(unused)}
    return {"params": fill(_shapes(net), used, name_of_text, source)}


def load_clip_vision(net: CLIPVision, tensors: Mapping[str, Any], source: str) -> Params:
    """Return {"params": ...} of an image encoder from a checkpoint of it, or of both encoders, in either layout.

    Raises:
      ValueError: naming the first tensor that is missing, has another shape, or is not used.
    """
    found = canonical(tensors, "vision_model")
    used = {name: value for name, value in found.items() if not name.startswith(("text_model.", "text_projection."))}
    return {"params": fill(_shapes(net), used, name_of_vision, source)}


def load_clip(net: CLIP, tensors: Mapping[str, Any], source: str) -> Params:
    """Return {"params": ...} of both encoders, of CLIP or HPS, in either layout.

    Raises:
      ValueError: naming the first tensor that is missing, has another shape, or is not used.
    """
    return {"params": fill(_shapes(net), canonical(tensors), name_of, source)}


def load_aesthetic(tensors: Tensors, source: str, width: int = 768) -> Params:
    """Return {"params": ...} of `Aesthetic` on features of this width from LAION's file.

    Raises:
      ValueError: naming the first tensor that is missing, has another shape, or is not used.
    """
    template = jax.eval_shape(Aesthetic().init, jax.random.key(0), jnp.zeros((1, width)))["params"]
    return {"params": fill(template, tensors, dotted, source)}
