"""Drawing tokens from logits: temperature, nucleus, and two precisions."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.categorical import EXCLUDED, exclude
from diffusion.corrupt.masking import uniform
from diffusion.randomness import fold
from diffusion.types import Keys, Logits, Tokens

Precision = Literal["exact", "mdlm_float32"]
NucleusRule = Literal["off", "inclusive", "standard"]


class Proposal(NamedTuple):
    """A full state: what every position (a token, or a digit of one) would be."""

    tokens: Tokens
    log_prob: Float[Array, "B L"]  # of the proposed value under the network, before temperature and nucleus, in nats
    race: Float[Array, "B L"]  # winning p / E of the exponential race; used by the low-precision rule alone


class Propose(Protocol):
    """What a sampler asks for at every step: a full state, given the logits and the state that they were made from."""

    def __call__(
        self,
        keys: Keys,
        logits: Logits,
        noisy: Tokens | None,
        temperature: Float[Array, ""],
        nucleus: Float[Array, ""],
    ) -> Proposal: ...

    def best(self, logits: Logits, noisy: Tokens | None) -> Tokens: ...


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
            noise = jax.vmap(lambda key: jax.random.gumbel(key, tempered.shape[1:], mode="high"))(keys)
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


def draw_two_stage(keys: Keys, logits: Logits) -> Tokens:
    """Draw from softmax(logits): first one of about sqrt(K) blocks of classes, then a class of that block.

    The law is that of one draw over all classes (each probability within float32 rounding, tails untruncated); the
    noise costs 2 sqrt(K) numbers a position instead of K, which on every platform is what a draw costs.
    """
    classes = logits.shape[-1]
    width = int(classes**0.5) + 1
    blocks = -(-classes // width)
    padding = [(0, 0)] * (logits.ndim - 1) + [(0, blocks * width - classes)]
    table = jnp.pad(logits, padding, constant_values=EXCLUDED).reshape(*logits.shape[:-1], blocks, width)
    block = categorical(fold(keys, "block"), jax.nn.logsumexp(table, axis=-1))
    row = jnp.take_along_axis(table, block[..., None, None], axis=-2)[..., 0, :]
    return block * width + categorical(fold(keys, "class"), row)


def categorical(keys: Keys, logits: Logits) -> Tokens:
    """One categorical draw a position, with noise whose tail reaches 1e-14 (mode "high")."""
    return jax.vmap(lambda key, row: jax.random.categorical(key, row, mode="high"))(keys, logits)


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
