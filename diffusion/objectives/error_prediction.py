"""The objective of G-Star's error predictor, on the errors of a frozen denoiser (arXiv 2510.08369)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffusion.categorical import select_lowest
from diffusion.objectives.elbo import sample_times
from diffusion.objectives.error_labels import (
    corrupt_tokens,
    fill_masks,
    fill_masks_in_steps,
    replace_tokens,
    unlikely_tokens,
)
from diffusion.objectives.loss import Loss
from diffusion.readout import BoundDenoiser, evaluated
from diffusion.rng import Draws, fold, gumbel
from diffusion.types import (
    Batch,
    Denoise,
    Denoiser,
    Keys,
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
PerToken = Float[Array, "B L"]
Total = tuple[Float[Array, ""], Float[Array, ""]]  # the sum of a loss, and the number of its tokens or sequences
# (denoiser's parameters, predictor's parameters, full state, label, *, keys) -> error logits, [B, L].
PredictErrors = Callable[..., PerToken]


def binary_cross_entropy(logits: PerToken, labels: PerToken, weights: LossMask) -> Total:
    """Binary cross-entropy, the sum of -log sigmoid(e) over errors and -log sigmoid(-e) over other tokens, in nats."""
    return jnp.sum(weights * _nats(logits, labels)), jnp.sum(weights)


def balanced_binary_cross_entropy(logits: PerToken, labels: PerToken, weights: LossMask) -> Total:
    """Binary cross-entropy with weight N / (2 n) for the n errors of N tokens and N / (2 (N - n)) for the others.

    The counts are those of the batch, or of each micro-batch.
    """
    count, errors = jnp.sum(weights), jnp.sum(weights * labels)
    balance = jnp.where(labels > 0, 1 / jnp.maximum(errors, 1), 1 / jnp.maximum(count - errors, 1))
    return jnp.sum(weights * balance * _nats(logits, labels)) * count / 2, count


def rank_loss(logits: PerToken, labels: PerToken, weights: LossMask) -> Total:
    """RankNet, the mean of softplus(e_j - e_i) over errors i and correct tokens j of a sequence.

    Sequences without errors or without correct tokens do not count. Only the order of the logits is learned.
    """
    errors, others = weights * labels, weights * (1 - labels)
    losses = jax.nn.softplus(logits[:, None, :] - logits[:, :, None])
    pairs = jnp.sum(errors, axis=1) * jnp.sum(others, axis=1)
    # Sums, because the default precision of a matrix product is low on accelerators.
    totals = jnp.sum(losses * errors[:, :, None] * others[:, None, :], axis=(1, 2))
    return jnp.sum(totals / jnp.maximum(pairs, 1)), jnp.sum(pairs > 0, dtype=jnp.float32)


LOSSES = {"bce": binary_cross_entropy, "balanced": balanced_binary_cross_entropy, "ranknet": rank_loss}


def quality(logits: PerToken, labels: PerToken, weights: LossMask) -> Metrics:
    """Compute metrics of the rule that predicts an error where its probability exceeds 1/2, as (total, count)."""
    predicted = (logits > 0).astype(jnp.float32)
    hits, predictions, errors = (jnp.sum(weights * x) for x in (predicted * labels, predicted, labels))
    count = jnp.sum(weights)
    return {
        "accuracy": (jnp.sum(weights * (predicted == labels)), count),
        "error_rate": (errors, count),
        "precision": (hits, predictions),
        "recall": (hits, errors),
        "f1": (2 * hits, predictions + errors),
    }


class Examples(NamedTuple):
    """Inputs and labels of an error predictor."""

    state: Symbols  # without masks
    labels: PerToken  # 1 where the token is an error
    drawn: TokenMask  # tokens of which the denoiser drew any symbol


@dataclass(frozen=True)
class ErrorPrediction:
    """Mean over tokens of -log p(error label | y), in nats per token (G-Star, arXiv 2510.08369).

    y is a masked text whose masks the frozen denoiser draws in one step. `params` has the entries "denoiser", "errors"
    (the predictor) and, with a judge, "judge"; only "errors" has a gradient. A token is an error if it differs from the
    text ("one_step"); if it differs from the result of `steps` ancestral steps from the same masked text
    ("consistency"); if its probability under the autoregressive `judge` is below exp(-`threshold`) ("likelihood"); or
    if it was replaced: a fraction `corruption` of the text's tokens is redrawn, and the denoiser does not run
    ("corruption"). With `scope` "filled" only tokens that the step draws count. With `own_masks` the masks are drawn
    twice: after the first draw the current predictor selects the tokens that are masked again, so that it is trained
    on states to which it leads. Times are stratified over the batch; the published code draws them independently. A
    `time` above 0 is that of all texts. Padding (weight 0) keeps its symbol and does not count. The corruptions that
    the published code adds to y beside the draws of the denoiser are not offered.

    Raises:
      ValueError: for options that are unknown, out of range or incompatible.
    """

    denoiser: Denoiser
    errors: PredictErrors
    process: MaskedProcess
    draw: Propose
    labels: str = "one_step"
    loss: str = "bce"
    scope: str = "all"
    own_masks: bool = False
    minimum_time: float = 1e-3
    time: float = 0.0
    corruption: float = 0.1
    threshold: float = 3.0
    steps: int = 4
    judge: Denoiser | None = None

    def __post_init__(self):
        for name, known in (("labels", LABELS), ("loss", tuple(LOSSES)), ("scope", SCOPES)):
            if getattr(self, name) not in known:
                raise ValueError(f"predictor.{name}: unknown {getattr(self, name)!r}; known: {', '.join(known)}")
        if not 0 <= self.corruption <= 1:
            raise ValueError(f"predictor.corruption: must lie in [0, 1], not {self.corruption}")
        if not 0 < self.minimum_time < 1:
            raise ValueError(f"objective.minimum_time: must lie between 0 and 1, not {self.minimum_time}")
        if not 0 <= self.time <= 1:
            raise ValueError(f"predictor.time: must lie in [0, 1], not {self.time}")
        if self.steps < 1:
            raise ValueError(f"predictor.steps: must be at least 1, not {self.steps}")
        if self.labels == "corruption" and self.scope == "filled":
            raise ValueError("predictor.scope: with predictor.labels=corruption nothing is filled; set it to all")
        if self.labels == "corruption" and self.own_masks:
            raise ValueError("predictor.own_masks: with predictor.labels=corruption nothing is masked; set it to False")
        if self.labels == "corruption" and self.time:
            raise ValueError("predictor.time: with predictor.labels=corruption nothing is masked; set it to 0")
        if self.labels == "likelihood" and self.judge is None:
            raise ValueError("predictor.judge: predictor.labels=likelihood needs an autoregressive network; name one")

    def __call__(self, params: Params, batch: Batch, draws: Draws, train: bool = True) -> Loss:
        state, labels, drawn = self.examples(params, batch, draws)
        weights = batch["weights"] * drawn if self.scope == "filled" else batch["weights"]
        keys = fold(draws.keys, "dropout") if train else None
        frozen = jax.lax.stop_gradient(params["denoiser"])
        logits = self.errors(frozen, params["errors"], state, batch.get("label"), keys=keys)
        total, count = LOSSES[self.loss](logits, labels, weights)
        return total, {"loss": (total, count), **quality(logits, labels, weights)}

    def examples(self, params: Params, batch: Batch, draws: Draws) -> Examples:
        """Draw a full state for every text, and compute its error labels; without gradients and without dropout."""
        params = jax.lax.stop_gradient(dict(params))
        process, keys = self.process, draws.keys
        tokens, counted, label = batch["tokens"], batch["weights"] > 0, batch.get("label")
        clean, truth = process.encode(tokens), tokens
        if self.labels == "corruption":
            state, drawn = corrupt_tokens(fold(keys, "exchange"), clean, counted, process, self.corruption), counted
        else:
            time = sample_times(draws.uniform, self.minimum_time)
            time = jnp.full_like(time, self.time) if self.time else time
            denoise = BoundDenoiser(self.denoiser, params["denoiser"], label)
            noisy = process.corrupt(keys, tokens, time)
            if self.own_masks:
                noisy = self.remask(params, batch, denoise, fold(keys, "own masks"), noisy, time)
            evaluation = denoise.readout(noisy, time)
            state = fill_masks(self.draw, fold(keys, "token"), evaluation, noisy, process.mask_id)
            drawn = any_symbol(noisy == process.mask_id, tokens)
            if self.labels == "consistency":
                chain = fill_masks_in_steps(
                    denoise, process, self.draw, fold(keys, "chain"), evaluation, noisy, time, self.steps
                )
                truth = process.decode(chain)
        state = replace_tokens(state, ~counted, clean)
        drawn_tokens = process.decode(state)
        if self.labels == "likelihood":
            assert self.judge is not None
            judge = BoundDenoiser(self.judge, params["judge"], label)
            errors = unlikely_tokens(judge, drawn_tokens, process.vocabulary, self.threshold)
        else:
            errors = drawn_tokens != truth
        return Examples(state, (errors & counted).astype(jnp.float32), drawn)

    def remask(
        self, params: Params, batch: Batch, denoise: Denoise, keys: Keys, noisy: Symbols, time: Times
    ) -> Symbols:
        """Draw the masks of `noisy`, and mask ceil((1 - alpha(t)) n) of its n counted positions by their error logits.

        The positions are those of the largest error logits plus Gumbel noise, hence without replacement: the guided
        step of G-Star at temperature 1, at constant time. Sub-tokens are selected separately, each with its token's
        error logit, as in sampling.
        """
        process, counted = self.process, batch["weights"] > 0
        full = fill_masks(self.draw, fold(keys, "token"), evaluated(denoise, noisy, time), noisy, process.mask_id)
        full = replace_tokens(full, ~counted, process.encode(batch["tokens"]))
        error_logits = self.errors(params["denoiser"], params["errors"], full, batch.get("label"))
        error_logits, allowed = (jnp.repeat(array, process.subtokens, axis=1) for array in (error_logits, counted))
        noise = gumbel(fold(keys, "select"), error_logits.shape[1:])
        number = jnp.ceil(process.schedule.masked(time) * jnp.sum(allowed, axis=1)).astype(jnp.int32)
        selected = select_lowest(jnp.where(allowed, -(error_logits + noise), jnp.inf), number) & allowed
        return jnp.where(selected, process.mask_id, full)


def any_symbol(masked: Bool[Array, "B N"], tokens: Tokens) -> TokenMask:
    """Return whether any symbol of each token is masked."""
    return jnp.any(masked.reshape(*tokens.shape, -1), axis=-1)


def _nats(logits: PerToken, labels: PerToken) -> PerToken:
    return jax.nn.softplus(logits) - labels * logits
