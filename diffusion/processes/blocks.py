"""Block diffusion: masked diffusion inside a block of tokens, given the clean blocks before it."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.processes.masking import MaskedDiffusion
from diffusion.types import Symbols, Tokens


@dataclass(frozen=True)
class BlockDiffusion(MaskedDiffusion):
    """p(x) = prod_b p(x^b | x^{<b}), with masked diffusion of each block of `block` tokens (BD3-LM, arXiv 2503.09573).

    A denoiser reads the noisy sequence and then the clean one, and returns logits of the noisy positions: those of a
    block depend on its noisy tokens and on the clean tokens of earlier blocks. With `block` = 1 the model is
    autoregressive, and with `block` the whole length it is MDLM.
    """

    block: int

    def by_block(self, values: Float[Array, "B L"]) -> Float[Array, "B N S"]:
        """Reshape one value per position to N blocks of S positions.

        Raises:
          ValueError: if the blocks do not divide the length.
        """
        size, length = values.shape
        if length % self.block:
            raise ValueError(f"process.block: {self.block} must divide the length {length}")
        return values.reshape(size, -1, self.block)

    def levels(self, uniform: Float[Array, " B"], blocks: int) -> Float[Array, "B N"]:
        """Spread one uniform number per example evenly over its blocks, (u + b / N) mod 1."""
        return jnp.mod(uniform[:, None] + jnp.arange(blocks)[None] / blocks, 1.0)

    def state(self, noisy: Tokens, clean: Tokens) -> Symbols:
        """Concatenate the noisy and the clean sequence, [B, 2 L]."""
        return jnp.concatenate([noisy, clean], axis=1)
