"""GPT-2 (Radford et al., 2019), the evaluator of generative perplexity."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.nets.attention import attend
from diffusion.nets.attention_masks import Causal
from diffusion.nets.layers import LayerNorm, Linear, stacked
from diffusion.partition import shard_batch
from diffusion.types import Tokens

SIZES = {
    "small": dict(hidden=768, blocks=12, heads=12),
    "medium": dict(hidden=1024, blocks=24, heads=16),
    "large": dict(hidden=1280, blocks=36, heads=20),
    "xl": dict(hidden=1600, blocks=48, heads=25),
}


class GPT2Block(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x)), with biases in all layers."""

    hidden: int
    heads: int
    dtype: str
    attention: str

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], unused: None) -> tuple[Float[Array, "B L D"], None]:
        batch, length, _ = x.shape
        linear = partial(Linear, initializer=0.02, dtype=self.dtype)
        h = LayerNorm(bias=True, name="norm1")(x)
        qkv = linear(3 * self.hidden, name="qkv")(h)
        query, key, value = (part.reshape(batch, length, self.heads, -1) for part in jnp.split(qkv, 3, axis=-1))
        h = attend(query, key, value, Causal(), backend=self.attention)
        h = linear(self.hidden, name="attention_out")(h.reshape(batch, length, self.hidden))
        x = shard_batch(x + h)
        h = LayerNorm(bias=True, name="norm2")(x)
        h = nn.gelu(linear(4 * self.hidden, name="mlp_in")(h), approximate=True)
        return shard_batch(x + linear(self.hidden, name="mlp_out")(h)), None


class GPT2(nn.Module):
    """A causal transformer with learned positions, norms before each part, and the output tied to the embedding."""

    vocab_size: int = 50257
    context: int = 1024
    hidden: int = 768
    blocks: int = 12
    heads: int = 12
    dtype: str = "float32"
    attention: str = "auto"

    def setup(self):
        normal = nn.initializers.normal(0.02)
        self.embedding = self.param("embedding", normal, (self.vocab_size, self.hidden), jnp.float32)
        self.positions = self.param("positions", normal, (self.context, self.hidden), jnp.float32)
        self.stack = stacked(GPT2Block, self.blocks, in_axes=nn.broadcast)(
            hidden=self.hidden, heads=self.heads, dtype=self.dtype, attention=self.attention, name="blocks"
        )
        self.norm = LayerNorm(bias=True, name="norm_final")

    def features(self, tokens: Tokens) -> Float[Array, "B L D"]:
        """Return the hidden states after the final norm, in float32.

        Raises:
          ValueError: if the sequences are longer than the context.
        """
        length = tokens.shape[1]
        if length > self.context:
            raise ValueError(f"judge.context: {length} tokens exceed the judge's {self.context}; score shorter windows")
        x = jnp.take(self.embedding, tokens, axis=0) + self.positions[None, :length]
        return self.norm(self.stack(shard_batch(x), None)[0])

    def __call__(self, tokens: Tokens) -> Float[Array, "B L K"]:
        """Return the logits of the next token at every position."""
        x = self.features(tokens)
        flat = x.astype(self.dtype).reshape(-1, self.hidden) @ self.embedding.astype(self.dtype).T
        return flat.reshape(*x.shape[:-1], self.vocab_size)
