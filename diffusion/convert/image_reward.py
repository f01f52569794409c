"""ImageReward's public checkpoint, ImageReward.pt, as the parameters of `diffusion.nets.sd.blip.ImageReward`."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.convert.template import dotted, fill
from diffusion.nets.sd.blip import IMAGE_REWARD, ImageReward
from diffusion.types import Params

LOOPS = ("blocks", "layer")
# Tensors that the reward does not read: projections of BLIP's contrastive loss, BERT's pooler, and the constant 0, 1,
# 2, ... The file has 446,206,689 parameters that the reward reads, and 459,264 in the two projections.
UNREAD = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.pooler.")
BUFFERS = ("position_ids",)


def name_of(keys: tuple[str, ...]) -> str:
    """Return the name of a leaf's tensor in the checkpoint, with "{}" for the number of a layer."""
    return dotted(keys, LOOPS)


def load_image_reward(tensors: Mapping[str, np.ndarray], source: str, net: ImageReward = IMAGE_REWARD) -> Params:
    """Return {"params": ...} of the network, each tensor in the type that it is stored in.

    Tensors that the reward does not read (`UNREAD` and `BUFFERS`) may be missing. `source` names the file in errors.

    Raises:
      ValueError: naming the first other tensor that is missing, has another shape, or is not used.
    """
    pixels = jnp.zeros((1, net.vision[0], net.vision[0], 3))
    ids = jnp.zeros((1, 1), jnp.int32)
    template = jax.eval_shape(net.init, jax.random.key(0), pixels, ids, ids)["params"]
    read = {name: value for name, value in tensors.items() if not (name.startswith(UNREAD) or name.endswith(BUFFERS))}
    return {"params": fill(template, read, name_of, source)}
