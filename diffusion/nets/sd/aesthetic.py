"""LAION's aesthetic predictor (sac+logos+ava1-l14-linearMSE): a number of about 1 to 10 for the look of an image."""

import flax.linen as nn
from jaxtyping import Array, Float

from diffusion.nets.layers import Linear

# Widths by the number of the layer in the checkpoint, which also counts the dropout of its training.
LAYERS = {0: 1024, 2: 128, 4: 64, 6: 16, 7: 1}


class Aesthetic(nn.Module):
    """Five linear maps, without activations between them, of the unit-norm image features of CLIP ViT-L/14."""

    @nn.compact
    def __call__(self, features: Float[Array, "B P"]) -> Float[Array, " B"]:
        for number, width in LAYERS.items():
            features = Linear(width, name=f"layers_{number}")(features)
        return features[:, 0]
