"""The sampler of masked diffusion: each step proposes a full sequence, selects the next masks, and composes both."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffusion.readout import Readout, RowLogits, Rows, draw_at, of_logits, read, readout
from diffusion.rng import fold
from diffusion.sampling.masked.grid import Grid
from diffusion.sampling.masked.policies import Policy, StepInputs
from diffusion.types import Denoiser, Keys, MaskedProcess, Params, Proposal, Propose, SelfConditioning, Symbols, Times


class Trace(NamedTuple):
    """The S states of the first n examples of a run of T steps: the prompt, and the state after every step.

    Where there is noise removal, one more state follows, so that the last state is always the sample.
    """

    states: Int[Array, "S n N"]
    times: Float[Array, "S n"]  # at which the network reads the states; 0 after noise removal
    guided: Bool[Array, " T"]  # of the grid
    errors: Float[Array, "T n N"] | None  # error logits of the proposals, 0 in steps that are not guided


class Samples(NamedTuple):
    """Sequences and their cost."""

    tokens: Symbols
    evaluations: Int[Array, " B"]  # of the denoiser, including the one for noise removal
    idle: Int[Array, " B"]  # number of steps that did not change the example
    invalid: Int[Array, " B"]  # number of sub-token codes without a token (their token is the vocabulary size)
    predictor_evaluations: Int[Array, " B"]  # evaluations of the error predictor
    trace: Trace | None = None


class MaskedState(NamedTuple):
    """Carry of the scan."""

    tokens: Symbols
    memory: Any
    extra: Any
    idle: Int[Array, " B"]


def scan_rows(step: Callable, start: Any, rows: Grid, count: Int[Array, ""] | int | None) -> tuple[Any, Any]:
    """Scan over the rows, or over the first `count` of them, whose results other than the carry are then not kept."""
    if count is None:
        return jax.lax.scan(step, start, rows)

    def turn(index: Int[Array, ""], state: Any) -> Any:
        return step(state, jax.tree.map(lambda column: column[index], rows))[0]

    return jax.lax.fori_loop(0, count, turn, start), None


@dataclass(frozen=True)
class MaskedSampler:
    """A sampler of masked diffusion under a policy.

    `final` fills the masks after the last step with one more evaluation: "argmax" (MDLM), "draw", or "none" for a grid
    that ends at 0. With `self_conditioning` every evaluation reads the previous prediction (SCMDM's prediction reuse),
    and the first evaluation has no self-conditioning input. `errors(params, proposal, cond)` returns one error logit
    per token of a full proposal (G-Star, arXiv 2510.08369), and is evaluated only in the guided steps of the grid. With
    `trace`, the samples come with all states of the first `trace` examples. Steps that change nothing are counted, and
    the network is evaluated in them too, unlike in the cached sampler of MDLM (arXiv 2406.07524).
    """

    denoiser: Denoiser
    process: MaskedProcess
    policy: Policy
    draw: Propose
    final: Literal["argmax", "draw", "none"] = "argmax"
    self_conditioning: SelfConditioning | None = None
    errors: Callable[[Params, Symbols, Any], Float[Array, "B L"]] | None = None
    trace: int = 0

    def __call__(
        self,
        params: Params,
        keys: Keys,
        prompt: Symbols,
        grid: Grid,
        cond: Any = None,
        steps: Int[Array, ""] | int | None = None,
    ) -> Samples:
        """Fill the masks of `prompt` [B, N] (all masks: unconditional); other positions do not change.

        Example i depends on keys[i] and not on other examples. With `steps`, only this many rows of the grid are steps,
        and the last row is repeated after them (`padded`).

        Raises:
          ValueError: for `steps` with a trace, which needs all rows.
        """
        if steps is not None and self.trace:
            raise ValueError("steps: a trace has as many states as the grid has rows; pass the grid without padding")
        size = len(prompt)
        fixed = prompt != self.process.mask_id

        def step(state: MaskedState, row: Grid) -> tuple[MaskedState, Any]:
            step_keys = fold(keys, row.index)
            time = self.policy.time(state.extra, row, size)
            masked = state.tokens == self.process.mask_id

            def select(proposal: Proposal, errors: Float[Array, "B N"]) -> tuple[Bool[Array, "B N"], Any]:
                filled = jnp.where(masked, proposal.tokens, state.tokens)
                inputs = StepInputs(masked, fixed, filled, proposal.log_prob, proposal.race, errors)
                masks, extra = self.policy.select(fold(step_keys, "select"), inputs, row, state.extra)
                return masks & ~fixed, extra

            evaluation = self.evaluate(params, state.tokens, time, cond, state.memory)
            if self.reads == "none":
                blank = jnp.zeros(prompt.shape)
                masks, extra = select(Proposal(state.tokens, blank, blank), blank)
                drawn = masked & ~masks
            else:
                drawn = masked if self.reads == "masked" else jnp.ones_like(masked)
            token_keys = fold(step_keys, "token")
            proposal = draw_at(self.draw, token_keys, evaluation, state.tokens, drawn, row.temperature, row.nucleus)
            filled = jnp.where(masked, proposal.tokens, state.tokens)
            errors = self.error_logits(params, filled, cond, row)
            if self.reads != "none":
                masks, extra = select(proposal, errors)
            tokens = jnp.where(masks, self.process.mask_id, filled)
            if self.policy.correct is not None:
                corrected = self.policy.correct(fold(step_keys, "correct"), tokens, proposal.tokens, row)
                tokens = jnp.where(fixed, tokens, corrected)
            same = jnp.all(tokens == state.tokens, axis=1)
            memory = state.memory
            if self.self_conditioning:
                memory = self.self_conditioning(params, evaluation.logits(), state.tokens, tokens)
            after = (tokens, time, errors if self.errors else None)
            shown = jax.tree.map(lambda leaf: leaf[: self.trace], after) if self.trace else None
            return MaskedState(tokens, memory, extra, state.idle + same), shown

        memory = self.self_conditioning.empty(prompt) if self.self_conditioning else None
        extra = self.policy.init(fold(keys, "policy"), fixed)
        start = MaskedState(prompt, memory, extra, jnp.zeros(size, jnp.int32))
        count = len(grid.index) if steps is None else steps
        state, shown = scan_rows(step, start, grid, steps)
        evaluations = jnp.full(size, count + (self.final != "none"))
        tokens = self.finish(params, keys, state, grid, cond)
        zeros = jnp.zeros(size, jnp.int32)
        guided = jnp.sum(grid.guided & (jnp.arange(len(grid.guided)) < count))
        predictor_evaluations = zeros + guided if self.errors else zeros
        trace = self.traced(prompt, shown, tokens, grid) if self.trace else None
        return Samples(tokens, evaluations, state.idle, zeros, predictor_evaluations, trace)

    @property
    def reads(self) -> str:
        """The positions of which a step reads the proposal before its masks are known: "none", "masked" or "all"."""
        if self.policy.correct is not None:
            return "all"
        # An error predictor reads a sequence without masks.
        return "masked" if self.errors and self.policy.reads == "none" else self.policy.reads

    def evaluate(self, params: Params, tokens: Symbols, time: Times, cond: Any, memory: Any) -> Readout:
        """Evaluate the denoiser; a self-conditioning input is made of all logits, which are computed at once."""
        if self.self_conditioning:
            return of_logits(self.denoiser(params, tokens, time, cond, memory))
        return readout(self.denoiser, params, tokens, time, cond, memory)

    def traced(self, prompt: Symbols, shown: tuple, tokens: Symbols, grid: Grid) -> Trace:
        """Return the trace of the traced rows `shown` of all steps, between the prompt and the samples."""
        states, times, errors = shown
        states, ends = [jnp.asarray(prompt)[None, : self.trace], states], [jnp.full_like(times[:1], grid.next_time[-1])]
        if self.final != "none":
            states, ends = [*states, tokens[None, : self.trace]], [*ends, jnp.zeros_like(ends[0])]
        return Trace(jnp.concatenate(states), jnp.concatenate([times, *ends]), grid.guided, errors)

    def error_logits(self, params: Params, proposal: Symbols, cond: Any, row: Grid) -> Float[Array, "B N"]:
        """Return the error logit of the token of every position, and 0 in steps that are not guided."""
        errors = self.errors
        if errors is None:
            return jnp.zeros(proposal.shape)

        def evaluate():
            return jnp.repeat(errors(params, proposal, cond), self.process.subtokens, axis=1)

        return jax.lax.cond(row.guided, evaluate, lambda: jnp.zeros(proposal.shape))

    def finish(self, params: Params, keys: Keys, state: MaskedState, grid: Grid, cond: Any) -> Symbols:
        """Fill the masks after the last step, as `final` says."""
        if self.final == "none":
            return state.tokens
        time = jnp.full(len(state.tokens), grid.next_time[-1])
        masked = state.tokens == self.process.mask_id
        evaluation = self.evaluate(params, state.tokens, time, cond, state.memory)
        if self.final == "draw":
            nucleus = jnp.ones(())  # noise removal is not truncated
            final_keys = fold(keys, "final")
            tokens = draw_at(
                self.draw, final_keys, evaluation, state.tokens, masked, grid.temperature[-1], nucleus
            ).tokens
        else:
            tokens = self.best(evaluation, state.tokens, masked)
        return jnp.where(masked, tokens, state.tokens)

    def best(self, evaluation: Readout, state: Symbols, masked: Bool[Array, "B N"]) -> Symbols:
        """Return the most probable values of masked positions; others are undefined."""

        def of_rows(logits: RowLogits, rows: Rows) -> Symbols:
            return self.draw.best(logits, rows.take(evaluation.by_token(state)))

        tokens = read(evaluation, jnp.any(evaluation.by_token(masked), axis=-1), of_rows)
        return tokens.reshape(state.shape)
