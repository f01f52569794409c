"""Training G-Star's error predictor on a frozen denoiser's own mistakes (arXiv 2510.08369)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffusion.categorical import lowest
from diffusion.objectives.elbo import sample_times
from diffusion.objectives.error_labels import (
    Augment,
    check_fraction,
    corrupted,
    fill,
    fill_in_steps,
    replace_tokens,
    unlikely,
)
from diffusion.rng import Draws, fold, gumbel
from diffusion.types import (
    Batch,
    Denoise,
    Denoiser,
    Keys,
    Logits,
    LossMask,
    MaskedProcess,
    Metrics,
    Params,
    Propose,
    Symbols,
    Times,
    TokenMask,
    Tokens,
)

LABELS = ("one_step", "corruption", "likelihood", "consistency")
SCOPES = ("all", "filled")
Scores = Float[Array, "B L"]
# (denoiser's parameters, predictor's parameters, full state, label, *, keys) -> error logits, [B, L].
Errors = Callable[..., Scores]


def cross_entropy(logits: Scores, wrong: Scores, weights: LossMask) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Binary cross-entropy, -log sigmoid(e) of errors and -log sigmoid(-e) of the others, in nats; and of how many."""
    return jnp.sum(weights * _nats(logits, wrong)), jnp.sum(weights)


def balanced_cross_entropy(
    logits: Scores, wrong: Scores, weights: LossMask
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Binary cross-entropy in which n errors of N tokens weigh N / (2 n), and the others N / (2 (N - n)).

    The numbers are those of this batch: cut in micro-batches, each has its own.
    """
    count, errors = jnp.sum(weights), jnp.sum(weights * wrong)
    balance = jnp.where(wrong > 0, 1 / jnp.maximum(errors, 1), 1 / jnp.maximum(count - errors, 1))
    return jnp.sum(weights * balance * _nats(logits, wrong)) * count / 2, count


def rank_loss(logits: Scores, wrong: Scores, weights: LossMask) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """RankNet: the mean of softplus(e_j - e_i) over errors i and correct tokens j of a sequence, and of how many.

    Sequences that lack one of the two count for nothing. Only the order of the logits is learned.
    """
    errors, others = weights * wrong, weights * (1 - wrong)
    losses = jax.nn.softplus(logits[:, None, :] - logits[:, :, None])
    pairs = jnp.sum(errors, axis=1) * jnp.sum(others, axis=1)
    # Sums, not a matrix product, whose default precision is low on accelerators.
    totals = jnp.sum(losses * errors[:, :, None] * others[:, None, :], axis=(1, 2))
    return jnp.sum(totals / jnp.maximum(pairs, 1)), jnp.sum(pairs > 0, dtype=jnp.float32)


LOSSES = {"bce": cross_entropy, "balanced": balanced_cross_entropy, "ranknet": rank_loss}


def quality(logits: Scores, wrong: Scores, weights: LossMask) -> Metrics:
    """Of predicting an error where its probability exceeds 1/2: ratios whose parts add up over batches."""
    predicted = (logits > 0).astype(jnp.float32)
    hits, found, errors = (jnp.sum(weights * x) for x in (predicted * wrong, predicted, wrong))
    count = jnp.sum(weights)
    return {
        "accuracy": (jnp.sum(weights * (predicted == wrong)), count),
        "error_rate": (errors, count),
        "precision": (hits, found),
        "recall": (hits, errors),
        "f1": (2 * hits, found + errors),
    }


class Examples(NamedTuple):
    """What the predictor reads, and what it should say."""

    state: Symbols  # without masks
    wrong: Scores  # 1 where the token is an error
    filled: TokenMask  # tokens of which this step filled anything


@dataclass(frozen=True)
class ErrorPrediction:
    """-log p(error | y) over tokens of y, a masked text that the frozen denoiser filled in one step, in nats a token.

    `params` hold "denoiser", "errors" (the predictor's) and with a judge "judge"; "errors" alone has a gradient. What
    is an error: "one_step", a token that is not the text's; "consistency", one that is not what `steps` ancestral steps
    from the same masked text give; "likelihood", one that the autoregressive `judge` gives less than
    exp(-`threshold`); "corruption", a token of the text that was exchanged (a fraction `corruption` is drawn anew), for
    which the denoiser is not run. Times are stratified over the batch where the published code draws them
    independently. `scope` "filled" counts the tokens that the step filled alone. With `own_masks` the masked text is
    filled, and the predictor as it stands chooses which tokens are masked again before the step: it then sees the
    states that it leads to. Padding (weight 0) keeps its symbol and is not counted.

    Raises:
      ValueError: for settings that are unknown, out of range or do not go together.
    """

    denoiser: Denoiser
    errors: Errors
    process: MaskedProcess
    draw: Propose
    labels: str = "one_step"
    loss: str = "bce"
    scope: str = "all"
    augment: Augment = field(default_factory=Augment)
    own_masks: bool = False
    minimum_time: float = 1e-3
    corruption: float = 0.1
    threshold: float = 3.0
    steps: int = 4
    judge: Denoiser | None = None

    def __post_init__(self):
        for name, known in (("labels", LABELS), ("loss", tuple(LOSSES)), ("scope", SCOPES)):
            if getattr(self, name) not in known:
                raise ValueError(f"predictor.{name}: unknown {getattr(self, name)!r}; known: {', '.join(known)}")
        check_fraction("predictor.corruption", self.corruption)
        if not 0 < self.minimum_time < 1:
            raise ValueError(f"objective.minimum_time: must lie between 0 and 1, not {self.minimum_time}")
        if self.steps < 1:
            raise ValueError(f"predictor.steps: must be at least 1, not {self.steps}")
        if self.labels == "corruption" and self.scope == "filled":
            raise ValueError("predictor.scope: with predictor.labels=corruption nothing is filled; set it to all")
        if self.labels == "corruption" and self.own_masks:
            raise ValueError("predictor.own_masks: with predictor.labels=corruption nothing is masked; set it to False")
        if self.labels == "likelihood" and self.judge is None:
            raise ValueError("predictor.judge: predictor.labels=likelihood needs an autoregressive network; name one")
        if self.augment.semantic and self.process.subtokens > 1:
            raise ValueError("predictor.augment.semantic: needs an embedding a token; set it to 0 or codec.digits=1")

    def __call__(
        self, params: Params, batch: Batch, draws: Draws, train: bool = True
    ) -> tuple[Float[Array, ""], Metrics]:
        state, wrong, filled = self.examples(params, batch, draws)
        weights = batch["weights"] * filled if self.scope == "filled" else batch["weights"]
        keys = fold(draws.keys, "dropout") if train else None
        frozen = jax.lax.stop_gradient(params["denoiser"])
        logits = self.errors(frozen, params["errors"], state, batch.get("label"), keys=keys)
        total, count = LOSSES[self.loss](logits, wrong, weights)
        return total, {"loss": (total, count), **quality(logits, wrong, weights)}

    def examples(self, params: Params, batch: Batch, draws: Draws) -> Examples:
        """A full state for every text, and its errors; no gradient passes, and no network has dropout."""
        params = jax.lax.stop_gradient(dict(params))
        process, keys = self.process, draws.keys
        tokens, counted, label = batch["tokens"], batch["weights"] > 0, batch.get("label")
        clean, truth = process.encode(tokens), tokens
        if self.labels == "corruption":
            state, filled = corrupted(fold(keys, "exchange"), clean, counted, process, self.corruption), counted
        else:
            time = sample_times(draws.uniform, self.minimum_time)

            def denoise(noisy: Symbols, time: Times) -> Logits:
                return self.denoiser(params["denoiser"], noisy, time, label)

            noisy = process.corrupt(keys, tokens, time)
            if self.own_masks:
                noisy = self.mask_again(params, batch, denoise, fold(keys, "own masks"), noisy, time)
            logits = denoise(noisy, time)
            state = fill(self.draw, fold(keys, "token"), logits, noisy, process.mask_id)
            filled = any_symbol(noisy == process.mask_id, tokens)
            if self.labels == "consistency":
                chain = fill_in_steps(denoise, process, self.draw, fold(keys, "chain"), logits, noisy, time, self.steps)
                truth = process.decode(chain)
        state = replace_tokens(state, ~counted, clean)
        state = self.augment(fold(keys, "augment"), state, counted, process, params["denoiser"])
        known = process.decode(state)
        if self.labels == "likelihood":
            assert self.judge is not None
            wrong = unlikely(self.judge, params["judge"], known, label, process.vocabulary, self.threshold)
        else:
            wrong = known != truth
        return Examples(state, (wrong & counted).astype(jnp.float32), filled)

    def mask_again(
        self, params: Params, batch: Batch, denoise: Denoise, keys: Keys, noisy: Symbols, time: Times
    ) -> Symbols:
        """Fill `noisy` and mask ceil((1 - alpha(t)) n) of its n counted positions, by their odds of being errors.

        Without replacement: the largest of error logits plus Gumbel noise, G-Star's guided step at temperature 1 that
        stays at its time. Digits are positions of their own, each with its token's logit, as in sampling.
        """
        process, counted = self.process, batch["weights"] > 0
        full = fill(self.draw, fold(keys, "token"), denoise(noisy, time), noisy, process.mask_id)
        full = replace_tokens(full, ~counted, process.encode(batch["tokens"]))
        scores = self.errors(params["denoiser"], params["errors"], full, batch.get("label"))
        scores, free = (jnp.repeat(array, process.subtokens, axis=1) for array in (scores, counted))
        noise = gumbel(fold(keys, "select"), scores.shape[1:])
        number = jnp.ceil(process.schedule.masked(time) * jnp.sum(free, axis=1)).astype(jnp.int32)
        chosen = lowest(jnp.where(free, -(scores + noise), jnp.inf), number) & free
        return jnp.where(chosen, process.mask_id, full)


def any_symbol(masked: Bool[Array, "B N"], tokens: Tokens) -> TokenMask:
    """Tokens of which any symbol is masked."""
    return jnp.any(masked.reshape(*tokens.shape, -1), axis=-1)


def _nats(logits: Scores, wrong: Scores) -> Scores:
    return jax.nn.softplus(logits) - wrong * logits
