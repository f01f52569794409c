"""Our side of the benchmark against PyTorch: the training step and the sampler of MDLM, compiled."""

import time
from collections.abc import Callable
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
from diffusion.train.state import new_state
from diffusion.train.step import make_step


def matmul_seconds(size: int, repeats: int) -> list[float]:
    """Seconds of float32 products of two square matrices."""
    left, right = (jax.random.normal(jax.random.key(seed), (size, size)) for seed in (0, 1))
    product, seconds = jax.jit(jnp.matmul), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        product(left, right).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def tasks(
    shape: dict[str, int], steps: int, sampler_steps: int, *, dropout: float, dtype: str, all_logits: bool = False
) -> tuple[dict[str, Callable[[], None]], dict[str, float]]:
    """Training of `steps` steps and sampling of `sampler_steps` steps, and seconds of each compilation.

    With `all_logits` the head is applied to all tokens in every step.
    """
    batch, length, mask_id = shape["batch"], shape["length"], shape["vocab_size"] - 1
    sizes: dict[str, Any] = {name: shape[name] for name in ("vocab_size", "hidden", "blocks", "heads")}
    unroll = shape["blocks"] if jax.default_backend() == "cpu" else 1
    net = DiT(**sizes, dropout=dropout, dtype=dtype, unroll=unroll)

    def features(params, noisy, time, cond=None, memory=None, *, keys=None) -> Any:
        return net.apply({"params": params}, noisy, keys=keys, method="head_input")

    def head(params, x) -> Any:
        return net.apply({"params": params}, x, method="logits")

    split, process = SplitDenoiser(features, head), MaskedDiffusion(mask_id, schedules.LogLinear(1e-3))
    # A function has no method `readout`.
    denoiser = split.__call__ if all_logits else split
    optimizer = adamw(peak=3e-4, warmup=2500, steps=10**6)
    root = jax.random.key(0)

    def begin(key):
        return new_state(net.init(key, jnp.zeros((1, length), jnp.int32))["params"], optimizer)

    tokens = jax.random.randint(jax.random.key(1), (batch, length), 0, mask_id)
    data = {"tokens": tokens, "weights": jnp.ones((batch, length))}
    carry = {"state": jax.jit(begin)(jax.random.key(2))}
    seconds = {}

    def compiled(kind: str, function: Callable, *inputs, **options):
        start = time.perf_counter()
        program = jax.jit(function, **options).lower(*inputs).compile()
        seconds[kind] = time.perf_counter() - start
        return program

    step = make_step(Nelbo(denoiser, process), optimizer)
    train = compiled("training", step, carry["state"], data, root, donate_argnums=0)

    def training() -> None:
        for _ in range(steps):
            carry["state"], metrics = train(carry["state"], data, root)
        jax.block_until_ready((carry["state"], metrics))

    policy = policies.Policy(policies.ancestral_step, reads="none")
    sampler = MaskedSampler(denoiser, process, policy, Draw(mask_id), final="none")
    table = grid(process.schedule, sampler_steps, length)
    prompt = jnp.full((batch, length), mask_id, jnp.int32)
    keys = example_keys(root, jnp.arange(batch))
    sample = compiled("sampling", sampler, carry["state"].params, keys, prompt, table)

    def sampling() -> None:
        jax.block_until_ready(sample(carry["state"].params, keys, prompt, table))

    return {"training": training, "sampling": sampling}, seconds
