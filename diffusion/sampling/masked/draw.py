"""Draws of tokens from logits, with temperature, nucleus and a choice of precision."""

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
    """A categorical draw from the first `vocabulary` classes, independently at every position.

    `precision="exact"` draws with Gumbel noise without a truncated tail. `"mdlm_float32"` is the rule of the public
    MDLM code, argmax p / (1e-10 - log(u + 1e-10)) with u uniform in float32. Its truncated tail removes rare tokens,
    which lowers the entropy and the generative perplexity of samples (arXiv 2409.02908). `noised` adds Gumbel noise to
    the logits of all classes, and takes the largest and its log-probability under the noised logits, so that confidence
    is random (P2, arXiv 2502.03540); at temperature 0 it is that of the raw logits. With `margin` as well, its
    difference from the second largest log-probability is returned in its place. `nucleus` is the rule of `nucleus_set`.
    `renormalized` takes log p after the nucleus, as ReMDM (arXiv 2503.00307) stores its confidence.
    """

    vocabulary: int
    precision: Precision = "exact"
    nucleus: NucleusRule = "off"
    noised: bool = False
    margin: bool = False
    renormalized: bool = False

    def __call__(
        self, keys: Keys, logits: Logits, noisy: Tokens | None, temperature: Float[Array, ""], nucleus: Float[Array, ""]
    ) -> Proposal:
        """Propose one token per position, with log p in nats; `noisy` is not read."""
        del noisy
        tokens, logits, race = self.tokens(keys, logits, temperature, nucleus)
        token_logits = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
        if self.margin:
            others = jnp.arange(logits.shape[-1])[None, None] != tokens[..., None]
            return Proposal(tokens, token_logits - jnp.max(logits, axis=-1, where=others, initial=EXCLUDED), race)
        return Proposal(tokens, token_logits - jax.nn.logsumexp(logits, axis=-1), race)

    def best(self, logits: Logits, noisy: Tokens | None) -> Tokens:
        """Return the most probable token of every position; `noisy` is not read."""
        del noisy
        return jnp.argmax(exclude(logits, self.vocabulary), axis=-1)

    def tokens(
        self, keys: Keys, logits: Logits, temperature: Float[Array, ""], nucleus: Float[Array, ""]
    ) -> tuple[Tokens, Logits, Float[Array, "B L"]]:
        """Return tokens, the float32 logits of their confidence, and the largest p / E.

        The logits are those before temperature and nucleus, or after the nucleus, or with noise (see the class).

        The last is 0 unless the precision is "mdlm_float32".
        """
        logits = exclude(logits, self.vocabulary)
        tempered = logits / jnp.maximum(temperature, 1e-6)
        if self.nucleus != "off":
            kept = nucleus_set(tempered, nucleus, self.nucleus)
            tempered = jnp.where(kept, tempered, EXCLUDED)
            logits = jnp.where(kept, logits, EXCLUDED) if self.renormalized else logits
        if self.noised:
            noise = gumbel(keys, tempered.shape[1:])
            noisy_logits = jnp.where(tempered > EXCLUDED / 2, tempered + noise, EXCLUDED)
            # Without noise the score is log p of the raw logits; divided by almost 0 they would all score 0.
            logits = jnp.where(temperature > 0, noisy_logits, logits)
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
    """Return the mask of the most probable classes, with ties, up to a total probability of `threshold`.

    "inclusive" (MDLM and its forks) excludes the class with which the total exceeds the threshold, and "standard"
    (top-p) includes it. The most probable class is always included.
    """
    probs = jax.nn.softmax(logits, axis=-1)
    ordered = -jnp.sort(-probs, axis=-1)
    mass = jnp.cumsum(ordered, axis=-1)
    within = mass <= threshold if rule == "inclusive" else mass - ordered < threshold
    count = jnp.maximum(jnp.sum(within, axis=-1, keepdims=True), 1)
    return probs >= jnp.take_along_axis(ordered, count - 1, axis=-1)
