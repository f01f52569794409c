"""Drawing tokens from logits: temperature, nucleus, and two precisions."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.categorical import EXCLUDED, draw_two_stage, exclude
from diffusion.rng import gumbel, uniform
from diffusion.types import Keys, Logits, Proposal, Tokens

Precision = Literal["exact", "mdlm_float32"]
NucleusRule = Literal["off", "inclusive", "standard"]


@dataclass(frozen=True)
class Draw:
    """How tokens are drawn from the first `vocabulary` classes.

    `precision="exact"` draws with Gumbel noise whose tail is not truncated. `"mdlm_float32"` is the rule of the public
    MDLM code, argmax p / (1e-10 - log(u + 1e-10)) with u uniform in float32: its truncated tail removes rare tokens,
    which lowers entropy and flatters generative perplexity (arXiv 2409.02908). It is here to be compared with. `noised`
    draws by the largest of the logits with Gumbel noise on every class and takes the token's log-probability under
    those, so that confidence is random (P2, arXiv 2502.03540).
    """

    vocabulary: int
    precision: Precision = "exact"
    nucleus: NucleusRule = "off"
    noised: bool = False

    def __call__(
        self,
        keys: Keys,
        logits: Logits,
        noisy: Tokens | None,
        temperature: Float[Array, ""],
        nucleus: Float[Array, ""],
    ) -> Proposal:
        """One token a position; the state is not looked at, for where it is known nobody asks."""
        del noisy
        tokens, logits, race = self.tokens(keys, logits, temperature, nucleus)
        chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
        return Proposal(tokens, chosen - jax.nn.logsumexp(logits, axis=-1), race)

    def best(self, logits: Logits, noisy: Tokens | None) -> Tokens:
        """The most probable token of every position."""
        del noisy
        return jnp.argmax(exclude(logits, self.vocabulary), axis=-1)

    def tokens(
        self, keys: Keys, logits: Logits, temperature: Float[Array, ""], nucleus: Float[Array, ""]
    ) -> tuple[Tokens, Logits, Float[Array, "B L"]]:
        """The drawn tokens, the float32 logits before temperature and nucleus (or noised), and the winning race."""
        logits = exclude(logits, self.vocabulary)
        tempered = logits / jnp.maximum(temperature, 1e-6)
        if self.nucleus != "off":
            tempered = jnp.where(nucleus_set(tempered, nucleus, self.nucleus), tempered, EXCLUDED)
        if self.noised:
            noise = gumbel(keys, tempered.shape[1:])
            logits = jnp.where(tempered > EXCLUDED / 2, tempered + noise, EXCLUDED)
            tokens, race = jnp.argmax(logits, axis=-1), jnp.zeros(logits.shape[:-1])
        elif self.precision == "exact":
            tokens = draw_two_stage(keys, tempered)
            race = jnp.zeros(tokens.shape)
        else:
            noise = 1e-10 - jnp.log(uniform(keys, tempered.shape[1:]) + 1e-10)
            scores = jax.nn.softmax(tempered, axis=-1) / noise
            tokens, race = jnp.argmax(scores, axis=-1), jnp.max(scores, axis=-1)
        return tokens.astype(jnp.int32), logits, race


def nucleus_set(logits: Logits, threshold: Float[Array, ""], rule: NucleusRule) -> Array:
    """Classes that stay: the most probable first, ties together, until their mass passes `threshold`.

    "inclusive" (MDLM and its forks) drops the class that crosses the threshold, "standard" (top-p) keeps it; the most
    probable class always stays.
    """
    probs = jax.nn.softmax(logits, axis=-1)
    ordered = -jnp.sort(-probs, axis=-1)
    mass = jnp.cumsum(ordered, axis=-1)
    within = mass <= threshold if rule == "inclusive" else mass - ordered < threshold
    kept = jnp.maximum(jnp.sum(within, axis=-1, keepdims=True), 1)
    return probs >= jnp.take_along_axis(ordered, kept - 1, axis=-1)
