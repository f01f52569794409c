"""The one masked sampler: propose a full sequence, select what is masked next, compose; in one scan."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffusion.objectives.nelbo import Process
from diffusion.randomness import fold
from diffusion.sampling.draw import Propose
from diffusion.sampling.grid import Grid
from diffusion.sampling.select import Policy, View
from diffusion.types import Denoiser, Keys, Params, Tokens


class Samples(NamedTuple):
    """Sequences and what they cost."""

    tokens: Tokens
    evaluations: Int[Array, "B"]  # denoiser evaluations, the last one for noise removal included
    idle: Int[Array, "B"]  # steps that changed nothing in this example
    invalid: Int[Array, "B"]  # tokens whose digits are no token's (they read as the vocabulary's size)


class State(NamedTuple):
    """What the scan carries; never logits."""

    tokens: Tokens
    memory: Any
    extra: Any
    idle: Int[Array, "B"]


@dataclass(frozen=True)
class MaskedSampler:
    """Sample by `grid` under a policy.

    `final` fills the masks that are left after the last step with one more evaluation: "argmax" (MDLM), "draw", or
    "none" for a grid that ends at 0.
    """

    denoiser: Denoiser
    process: Process
    policy: Policy
    draw: Propose
    final: Literal["argmax", "draw", "none"] = "argmax"

    def __call__(self, params: Params, keys: Keys, prompt: Tokens, grid: Grid, cond: Any = None) -> Samples:
        """Fill the masks of `prompt` (all masks: unconditional); other positions are never touched.

        Example i depends on keys[i] alone, not on the batch around it.
        """
        size = len(prompt)
        fixed = prompt != self.process.mask_id

        def step(state: State, row: Grid) -> tuple[State, None]:
            step_keys = fold(keys, row.index)
            time = self.policy.time(state.extra, row, size)
            logits = self.denoiser(params, state.tokens, time, cond, state.memory)
            proposal = self.draw(fold(step_keys, "token"), logits, state.tokens, row.temperature, row.nucleus)
            masked = state.tokens == self.process.mask_id
            filled = jnp.where(masked, proposal.tokens, state.tokens)
            view = View(masked, fixed, filled, proposal.log_prob, proposal.race)
            masks, extra = self.policy.select(fold(step_keys, "select"), view, row, state.extra)
            tokens = jnp.where(masks & ~fixed, self.process.mask_id, filled)
            if self.policy.correct is not None:
                corrected = self.policy.correct(fold(step_keys, "correct"), tokens, proposal.tokens, row)
                tokens = jnp.where(fixed, tokens, corrected)
            idle = state.idle + jnp.all(tokens == state.tokens, axis=1)
            return State(tokens, state.memory, extra, idle), None

        start = State(prompt, None, self.policy.init(fold(keys, "policy"), fixed), jnp.zeros(size, jnp.int32))
        state, _ = jax.lax.scan(step, start, grid)
        evaluations = jnp.full(size, len(grid.index) + (self.final != "none"))
        tokens = self.finish(params, keys, state, grid, cond)
        return Samples(tokens, evaluations, state.idle, jnp.zeros(size, jnp.int32))

    def finish(self, params: Params, keys: Keys, state: State, grid: Grid, cond: Any) -> Tokens:
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
