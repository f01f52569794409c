"""Published networks in either form: files of their authors, or folders that the verb `convert` wrote.

Those of images are read as tensors with the names of the authors' files, so that one loader checks and converts both.
"""

import dataclasses
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from diffusion.convert import diffusers, image_reward
from diffusion.convert.clip import name_of, name_of_text
from diffusion.convert.files import LazyTensors, open_tensors
from diffusion.convert.model_config import component, read_config
from diffusion.convert.template import NameOf, dotted, named
from diffusion.train.weights import read_weights

# The parts of a converted folder, by its layout, each with the names of its tensors.
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
LAYOUTS: Mapping[str, Mapping[str, NameOf]] = {
    "diffusers": {"unet": diffusers.name_in_unet, "vae": dotted} | dict.fromkeys(TEXT_ENCODERS, name_of_text),
    "clip": {"clip": name_of},
    "image_reward": {"image_reward": image_reward.name_of},
}
# Sections of a config that say what a converted network is, without a field that may be chosen for it.
RECORDED, CHOSEN = ("model", "unet", "codec", "predictor"), ("codec.carry_over",)
# How a network computes, and not what it is.
COMPUTED = ("parent", "name", "dtype", "attention", "remat")
# Sizes of a text encoder: the field of transformers, and its default there.
TEXT_FIELDS: dict[str, tuple[str, Any]] = {
    "width": ("hidden_size", 512),
    "layers": ("num_hidden_layers", 12),
    "heads": ("num_attention_heads", 8),
    "feed_forward": ("intermediate_size", 2048),
    "activation": ("hidden_act", "quick_gelu"),
    "vocab_size": ("vocab_size", 49408),
    "length": ("max_position_embeddings", 77),
}


def conversion(path: Path, part: str = "") -> dict[str, Any] | None:
    """What `convert` wrote about a folder that has `part`; None for files and folders of other origin.

    Raises:
      ValueError: for a converted folder of another kind.
    """
    file = path / "config.json"
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text())
    except (ValueError, RecursionError):
        return None  # its reader says what is wrong with it
    if not isinstance(found, dict) or "layout" not in found:
        return None
    if part and part not in found.get("parts", ()):
        raise ValueError(
            f"weights: '{path}' was converted by --from={found['layout']} and has no {part}; name another folder"
        )
    return found


def check_recorded(config: ConfigDict) -> None:
    """Raise ValueError for a network other than that of a converted `checkpoint`, which shapes need not show."""
    folder = Path(config.checkpoint)
    folder = folder.parent if folder.name == "weights" else folder
    found = conversion(folder)
    for name, value in found.get("overrides", {}).items() if found else ():
        section, _, key = name.rpartition(".")
        if section not in RECORDED or name in CHOSEN:
            continue
        actual = config[section][key]
        if name == "codec.permutation":  # its name in the folder, where any file may stand for it
            value, actual = (actual, actual) if actual else (str(folder / value), actual)
        if json.dumps(actual) != json.dumps(value):
            raise ValueError(
                f"{name}: {actual!r}, where '{folder}' was converted with it; pass --config.{name}={value}"
            )


def open_weights(path: str | Path, part: str) -> Mapping[str, np.ndarray]:
    """Return the tensors of a part of a pipeline, or of a reward, in the types that they are stored in.

    `path` is a converted folder, or a file or folder that `open_tensors` reads; `part` is a key of `LAYOUTS[...]`.

    Raises:
      FileNotFoundError: if there are no such weights.
      ValueError: if they are not readable, or of another kind.
    """
    path = Path(path)
    if found := conversion(path, part):
        return named(read_weights(path / part), LAYOUTS[found["layout"]][part])
    folder = component(path, part) if part in LAYOUTS["diffusers"] and path.is_dir() else path
    return open_tensors(folder)


def open_floats(path: str | Path, part: str) -> Mapping[str, np.ndarray]:
    """Return the tensors of `open_weights` as float32."""
    tensors = open_weights(path, part)

    def read(name: str) -> np.ndarray:
        return np.asarray(tensors[name], np.float32)

    return LazyTensors({name: partial(read, name) for name in tensors})


def pipeline_sizes(folder: Path) -> dict[str, Any]:
    """Return kind, sizes of networks and noise schedule of a pipeline in either form, as `backbone_sizes` does.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if a file is not readable, or a field is not supported.
    """
    if found := conversion(folder, "unet"):
        return found["sizes"]
    facts = diffusers.pipeline_facts(folder)
    if facts.xl and not facts.zeros_for_empty_prompt:
        raise ValueError(
            f"text_to_image.pipeline: {folder / 'model_index.json'} has force_zeros_for_empty_prompt = False; use a "
            "pipeline with True, as SDXL is published"
        )
    encoders = []
    for name in TEXT_ENCODERS[: 1 + facts.xl]:
        config = read_config(folder, (), name)
        encoders.append({field: config.get(*known) for field, known in TEXT_FIELDS.items()})
    sizes = {"xl": facts.xl, "unet": sizes_of(diffusers.unet_of(folder)), "vae": sizes_of(diffusers.vae_of(folder))}
    return sizes | {"text_encoders": encoders, "schedule": diffusers.scheduler_facts(folder)._asdict()}


def sizes_of(net: nn.Module) -> dict[str, Any]:
    """Return the fields of a network as JSON has them, without those of how it computes."""
    fields = {each.name: getattr(net, each.name) for each in dataclasses.fields(net) if each.name not in COMPUTED}
    return json.loads(json.dumps(fields))
