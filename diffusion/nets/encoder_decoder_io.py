"""Input and output layers of a denoiser of embeddings: time embedding, self-conditioning input, and readout.

Each has the form of Difformer (arXiv 2212.09412) and that of DINOISER (arXiv 2302.10025).
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from diffusion.nets.layers import Linear, dropout, sinusoids

Form = Literal["difformer", "dinoiser"]
FREQUENCIES = 128
DEVIATION = 16.0

Rows = Float[Array, "V d"]
# "unit": rows of norm sqrt(d), for latents and for logits (DINOISER). "scaled": sqrt(d) times the table for latents,
# and the table for logits (Difformer).
SCALES = ("unit", "scaled")


def scaled_rows(table: Rows, scale: str) -> Rows:
    """Return e(v) of all tokens: rows of the table scaled to norm sqrt(d) ("unit"), or times sqrt(d) ("scaled")."""
    table = table.astype(jnp.float32)
    width = table.shape[-1]
    if scale == "scaled":
        return table * width**0.5
    return table * jax.lax.rsqrt(jnp.maximum(jnp.sum(table**2, axis=-1, keepdims=True) / width, 1e-24))


class TokenTime(nn.Module):
    """The embedding of the time of every token.

    "difformer": W2 relu(W1 sinusoids(1000 t)) with widths 4 D and D. "dinoiser": W2 silu(W1 [sin, cos](2 pi t w)) with
    128 fixed frequencies w ~ N(0, 16^2), and widths 512 and D. (Difformer's code embeds index i of 2,000 as
    1000 i / 2000. Our time of this index is (i + 1) / 2000, so that the embedded value is larger by 0.5.)
    """

    form: Form
    hidden: int

    @nn.compact
    def __call__(self, time: Float[Array, "B L"]) -> Float[Array, "B L D"]:
        batch, length = time.shape
        flat = time.reshape(-1)
        if self.form == "difformer":
            features = sinusoids(1000 * flat, self.hidden // 2 * 2)
            hidden = nn.relu(Linear(4 * self.hidden, name="first")(features))
        else:
            frequencies = np.random.default_rng(0).normal(0, DEVIATION, FREQUENCIES).astype(np.float32)
            angles = 2 * jnp.pi * flat[:, None] * jnp.asarray(frequencies)[None]
            features = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
            hidden = nn.silu(Linear(512, name="first")(features))
        return Linear(self.hidden, name="second")(hidden).reshape(batch, length, self.hidden)


class Join(nn.Module):
    """A projection of noisy latents z and the self-conditioning input s to the width of the network.

    "difformer": W2 drop(relu(W1 [P z ; P s])) with one projection P without bias. "dinoiser": W2 tanh(W1 [z ; s]).
    """

    form: Form
    hidden: int
    dropout: float
    dtype: str

    @nn.compact
    def __call__(
        self, noisy: Float[Array, "B L d"], memory: Float[Array, "B L d"], seeds: UInt32[Array, "B 2"] | None
    ) -> Float[Array, "B L D"]:
        if self.form == "difformer":
            project = Linear(self.hidden, bias=False, dtype=self.dtype, name="project")
            both = jnp.concatenate([project(noisy), project(memory)], axis=-1)
            hidden = nn.relu(Linear(self.hidden, dtype=self.dtype, name="first")(both))
            hidden = hidden if seeds is None else dropout(hidden, seeds, self.dropout)
        else:
            both = jnp.concatenate([noisy, memory], axis=-1)
            hidden = jnp.tanh(Linear(2 * self.hidden, dtype=self.dtype, name="first")(both))
        return Linear(self.hidden, dtype=self.dtype, name="second")(hidden)


class Readout(nn.Module):
    """The estimate of the clean latents, in float32.

    "difformer": one linear map without bias. "dinoiser": W2 tanh(W1 x).
    """

    form: Form
    latent: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L d"]:
        if self.form == "dinoiser":
            x = jnp.tanh(Linear(2 * x.shape[-1], dtype=self.dtype, name="first")(x))
        out = Linear(self.latent, bias=self.form == "dinoiser", initializer=0.02, dtype=self.dtype, name="second")
        return out(x).astype(jnp.float32)
