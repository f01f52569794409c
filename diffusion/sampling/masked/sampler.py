"""The one masked sampler: propose a full sequence, select what is masked next, compose; in one scan."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion.rng import fold
from diffusion.sampling.masked.grid import Grid
from diffusion.sampling.masked.policies import Policy, StepInputs
from diffusion.types import Denoiser, Keys, Logits, MaskedProcess, Params, Propose, SelfConditioning, Symbols, Times


class Samples(NamedTuple):
    """Sequences and what they cost."""

    tokens: Symbols
    evaluations: Int[Array, " B"]  # of the denoiser, the last one for noise removal included
    idle: Int[Array, " B"]  # steps that changed nothing in this example
    invalid: Int[Array, " B"]  # tokens whose digits are no token's (they read as the vocabulary's size)
    predictor_evaluations: Int[Array, " B"]  # evaluations of the error predictor


class MaskedState(NamedTuple):
    """What the scan carries; no logits, unless a cache is asked for."""

    tokens: Symbols
    memory: Any
    extra: Any
    idle: Int[Array, " B"]
    cached: Any = None  # with a cache: the last logits, whether they still hold, and evaluations so far


@dataclass(frozen=True)
class MaskedSampler:
    """Sample by `grid` under a policy.

    `final` fills the masks that are left after the last step with one more evaluation: "argmax" (MDLM), "draw", or
    "none" for a grid that ends at 0. With `self_conditioning` every evaluation reads the prediction of the one before
    it (SCMDM's prediction reuse); the first one reads none. With `cache` a step in which no example of the batch
    changed is answered by the logits of the step before, as MDLM's fast sampler does; it costs an array of logits, is
    right for a network that reads no time alone, and leaves the memory as it was. `errors(params, proposal, cond)`
    gives one error logit a token of a full proposal (G-Star); it is asked in the grid's guided steps alone.
    """

    denoiser: Denoiser
    process: MaskedProcess
    policy: Policy
    draw: Propose
    final: Literal["argmax", "draw", "none"] = "argmax"
    self_conditioning: SelfConditioning | None = None
    cache: bool = False
    errors: Callable[[Params, Symbols, Any], Float[Array, "B L"]] | None = None

    def __call__(self, params: Params, keys: Keys, prompt: Symbols, grid: Grid, cond: Any = None) -> Samples:
        """Fill the masks of `prompt` (all masks: unconditional); other positions are never touched.

        Example i depends on keys[i] alone, not on the batch around it; with both a cache and a memory also on the steps
        in which the others changed, for then its memory is made anew.
        """
        size = len(prompt)
        fixed = prompt != self.process.mask_id

        def step(state: MaskedState, row: Grid) -> tuple[MaskedState, None]:
            step_keys = fold(keys, row.index)
            time = self.policy.time(state.extra, row, size)
            logits, cached = self.predict(params, state, time, cond)
            proposal = self.draw(fold(step_keys, "token"), logits, state.tokens, row.temperature, row.nucleus)
            masked = state.tokens == self.process.mask_id
            filled = jnp.where(masked, proposal.tokens, state.tokens)
            errors = self.error_logits(params, filled, cond, row)
            inputs = StepInputs(masked, fixed, filled, proposal.log_prob, proposal.race, errors)
            masks, extra = self.policy.select(fold(step_keys, "select"), inputs, row, state.extra)
            tokens = jnp.where(masks & ~fixed, self.process.mask_id, filled)
            if self.policy.correct is not None:
                corrected = self.policy.correct(fold(step_keys, "correct"), tokens, proposal.tokens, row)
                tokens = jnp.where(fixed, tokens, corrected)
            same = jnp.all(tokens == state.tokens, axis=1)
            memory = state.memory
            if self.self_conditioning:
                fresh = self.self_conditioning(params, logits, state.tokens, tokens)
                memory = jnp.where(jnp.all(same), memory, fresh) if self.cache else fresh
            cached = (cached[0], jnp.all(same), cached[2]) if self.cache else None
            return MaskedState(tokens, memory, extra, state.idle + same, cached), None

        memory = self.self_conditioning.empty(prompt) if self.self_conditioning else None
        extra = self.policy.init(fold(keys, "policy"), fixed)
        cached = self.no_cache(params, prompt, cond) if self.cache else None
        start = MaskedState(prompt, memory, extra, jnp.zeros(size, jnp.int32), cached)
        state, _ = jax.lax.scan(step, start, grid)
        steps = state.cached[2] if self.cache else len(grid.index)
        evaluations = jnp.full(size, steps + (self.final != "none"))
        tokens = self.finish(params, keys, state, grid, cond)
        nothing = jnp.zeros(size, jnp.int32)
        predictor_evaluations = nothing + jnp.sum(grid.guided) if self.errors else nothing
        return Samples(tokens, evaluations, state.idle, nothing, predictor_evaluations)

    def predict(self, params: Params, state: MaskedState, time: Times, cond: Any) -> tuple[Logits, Any]:
        """The logits of a step, and the cache with them; the network runs unless the cache answers."""

        def evaluate():
            return self.denoiser(params, state.tokens, time, cond, state.memory)

        if not self.cache:
            return evaluate(), None
        logits, valid, count = state.cached
        logits = jax.lax.cond(valid, lambda: logits, evaluate)
        return logits, (logits, valid, count + ~valid)

    def error_logits(self, params: Params, proposal: Symbols, cond: Any, row: Grid) -> Float[Array, "B N"]:
        """The error logit of every position of a proposal, that of its token; 0 where nobody is asked."""
        errors = self.errors
        if errors is None:
            return jnp.zeros(proposal.shape)

        def ask():
            return jnp.repeat(errors(params, proposal, cond), self.process.subtokens, axis=1)

        return jax.lax.cond(row.guided, ask, lambda: jnp.zeros(proposal.shape))

    def no_cache(self, params: Params, prompt: Symbols, cond: Any) -> tuple:
        """A cache that holds nothing yet."""
        memory, time = (
            (self.self_conditioning.empty(prompt) if self.self_conditioning else None),
            jnp.zeros(len(prompt)),
        )
        shape = jax.eval_shape(self.denoiser, params, prompt, time, cond, memory)
        return jnp.zeros(shape.shape, shape.dtype), jnp.zeros((), bool), jnp.zeros((), jnp.int32)

    def finish(self, params: Params, keys: Keys, state: MaskedState, grid: Grid, cond: Any) -> Symbols:
        """Fill what is still masked after the last step."""
        if self.final == "none":
            return state.tokens
        time = jnp.full(len(state.tokens), grid.next_time[-1])
        logits = self.denoiser(params, state.tokens, time, cond, state.memory)
        if self.final == "draw":
            whole = jnp.ones(())  # noise removal is never truncated
            tokens = self.draw(fold(keys, "final"), logits, state.tokens, grid.temperature[-1], whole).tokens
        else:
            tokens = self.draw.best(logits, state.tokens)
        return jnp.where(state.tokens == self.process.mask_id, tokens, state.tokens)
