"""Left-to-right sampling with a cache of keys and values, in one scan."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from diffusion.codecs.subtoken_prefixes import restrict
from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.rng import fold
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.sampler import Samples
from diffusion.types import Keys, Params, Symbols

Decode = Callable[[Params, jax.Array, jax.Array, Any], tuple[jax.Array, Any]]


@dataclass(frozen=True)
class AutoregressiveSampler:
    """A sampler of x^i ~ p(x^i | x^{<i}) that keeps the tokens of a prompt.

    `init_cache(size)` and `decode(params, token [B], position, cache) -> (logits [B, K], cache)` are those of a causal
    network. The mask symbol is the first input or, with `given_first`, the first token of the prompt, which is known.
    """

    init_cache: Callable[[int], Any]
    decode: Decode
    draw: Draw
    mask_id: int
    given_first: bool = False

    def __call__(self, params: Params, keys: Keys, prompt: Symbols, temperature=1.0, nucleus=1.0) -> Samples:
        """Draw tokens at the masks of `prompt` [B, L]; example i depends on keys[i] and its prompt only."""
        size = len(prompt)
        temperature, nucleus = jnp.asarray(temperature, jnp.float32), jnp.asarray(nucleus, jnp.float32)

        def step(carry, column):
            token, cache = carry
            position, prompt_token = column
            logits, cache = self.decode(params, token, position, cache)
            drawn = self.draw(fold(keys, position), logits[:, None, :], None, temperature, nucleus).tokens[:, 0]
            token = jnp.where(prompt_token == self.mask_id, drawn, prompt_token)
            return (token, cache), token

        first = prompt[:, :1] if self.given_first else jnp.full((size, 1), self.mask_id, prompt.dtype)
        columns = prompt[:, 1:] if self.given_first else prompt
        count = columns.shape[1]
        _, tokens = jax.lax.scan(step, (first[:, 0], self.init_cache(size)), (jnp.arange(count), columns.T))
        tokens = jnp.concatenate([first, tokens.T], axis=1) if self.given_first else tokens.T
        zeros = jnp.zeros(size, jnp.int32)
        return Samples(tokens, jnp.full(size, count), zeros, zeros, zeros)


def of_codes(
    codec: SubtokenCodec, init_cache: Callable[[int], Any], decode: Decode
) -> tuple[Callable[[int], Any], Decode]:
    """Return `init_cache` and `decode` of a network of sub-tokens, with no mass on those that lead to no token.

    The cache also holds the prefix of the token that is being written, by its number (see `continuations`).
    """

    def restricted(params: Params, symbol: jax.Array, position: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
        inner, prefix = cache
        prefix = jnp.where(position % codec.digits == 0, 0, codec.base * prefix + 1 + symbol)
        logits, inner = decode(params, symbol, position, inner)
        return restrict(codec, logits, prefix), (inner, prefix)

    return lambda size: (init_cache(size), jnp.zeros(size, jnp.int32)), restricted
