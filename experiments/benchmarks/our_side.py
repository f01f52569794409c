"""Our side of the benchmark against PyTorch: the training step and the sampler of MDLM, compiled."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from diffusion.nets.dit import DiT
from diffusion.objectives.elbo import Nelbo
from diffusion.processes.masking import MaskedDiffusion
from diffusion.readout import SplitDenoiser
from diffusion.rng import example_keys
from diffusion.sampling.masked import policies
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import grid
from diffusion.sampling.masked.sampler import MaskedSampler
from diffusion.schedules import masking as schedules
from diffusion.train.optimizer import adamw
from diffusion.train.state import TrainState, new_state
from diffusion.train.step import make_step
from diffusion.types import Params


def matmul_seconds(size: int, repeats: int) -> list[float]:
    """Seconds of float32 products of two square matrices."""
    left, right = (jax.random.normal(jax.random.key(seed), (size, size)) for seed in (0, 1))
    product, seconds = jax.jit(jnp.matmul), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        product(left, right).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


@dataclass(frozen=True)
class Programs:
    """The network, its training step and its sampler, with inputs of one batch.

    `trunk(params, noisy)` is the input of `head(params, x)`.
    """

    trunk: Callable[[Params, Any], Any]
    head: Callable[[Params, Any], Any]
    step: Callable[..., Any]
    sampler: MaskedSampler
    state: TrainState
    data: dict[str, Any]
    prompt: Any
    root: Any

    def training(self) -> Callable[[], Any]:
        """One training step a call, compiled."""
        step = jax.jit(self.step, donate_argnums=0).lower(self.state, self.data, self.root).compile()
        carry = {"state": jax.tree.map(jnp.copy, self.state)}

        def run():
            carry["state"], metrics = step(carry["state"], self.data, self.root)
            return carry["state"], metrics

        return run

    def sampling(self, steps: int) -> Callable[[], Any]:
        """One run of the sampler a call, compiled."""
        table = grid(self.sampler.process.schedule, steps, self.prompt.shape[1])
        keys = example_keys(self.root, jnp.arange(len(self.prompt)))
        inputs = self.state.params, keys, self.prompt, table
        sample = jax.jit(self.sampler).lower(*inputs).compile()
        return lambda: sample(*inputs)


def build(shape: dict[str, int], *, dropout: float, dtype: str, all_logits: bool = False) -> Programs:
    """The programs of a size; with `all_logits` the head is applied to all tokens in every step."""
    batch, length, mask_id = shape["batch"], shape["length"], shape["vocab_size"] - 1
    sizes: dict[str, Any] = {name: shape[name] for name in ("vocab_size", "hidden", "blocks", "heads")}
    unroll = shape["blocks"] if jax.default_backend() == "cpu" else 1
    net = DiT(**sizes, dropout=dropout, dtype=dtype, unroll=unroll)

    def features(params, noisy, time=None, cond=None, memory=None, *, keys=None) -> Any:
        return net.apply({"params": params}, noisy, keys=keys, method="head_input")

    def head(params, x) -> Any:
        return net.apply({"params": params}, x, method="logits")

    split, process = SplitDenoiser(features, head), MaskedDiffusion(mask_id, schedules.LogLinear(1e-3))
    # A function has no method `readout`.
    denoiser = split.__call__ if all_logits else split
    optimizer = adamw(peak=3e-4, warmup=2500, steps=10**6)

    def begin(key):
        return new_state(net.init(key, jnp.zeros((1, length), jnp.int32))["params"], optimizer)

    policy = policies.Policy(policies.ancestral_step, reads="none")
    tokens = jax.random.randint(jax.random.key(1), (batch, length), 0, mask_id)
    return Programs(
        trunk=features,
        head=head,
        step=make_step(Nelbo(denoiser, process), optimizer),
        sampler=MaskedSampler(denoiser, process, policy, Draw(mask_id), final="none"),
        state=jax.jit(begin)(jax.random.key(2)),
        data={"tokens": tokens, "weights": jnp.ones((batch, length))},
        prompt=jnp.full((batch, length), mask_id, jnp.int32),
        root=jax.random.key(0),
    )


def tasks(
    shape: dict[str, int], steps: int, sampler_steps: int, *, dropout: float, dtype: str, all_logits: bool = False
) -> tuple[dict[str, Callable[[], None]], dict[str, float]]:
    """Training of `steps` steps and sampling of `sampler_steps` steps, and seconds of each compilation."""
    built = build(shape, dropout=dropout, dtype=dtype, all_logits=all_logits)
    programs, seconds = {}, {}
    for kind, compiled in (("training", built.training), ("sampling", partial(built.sampling, sampler_steps))):
        start = time.perf_counter()
        programs[kind] = compiled()
        seconds[kind] = time.perf_counter() - start

    def training() -> None:
        for _ in range(steps):
            result = programs["training"]()
        jax.block_until_ready(result)

    def sampling() -> None:
        jax.block_until_ready(programs["sampling"]())

    return {"training": training, "sampling": sampling}, seconds
