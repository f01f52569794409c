"""Self-conditioning on the strings 00 and 11, where the state alone determines the optimal prediction."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion.objectives.reveal import RevealNelbo
from diffusion.objectives.self_conditioning import SoftEmbedding, randomly_self_conditioned, self_conditioned
from diffusion.oracles.enumerable import Enumerable
from diffusion.processes.masking import MaskedDiffusion
from diffusion.rng import draws
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import grid
from diffusion.sampling.masked.policies import Policy, random_order_step
from diffusion.sampling.masked.sampler import MaskedSampler
from diffusion.schedules.masking import Linear, LogLinear
from tests.checks import optimized
from tests.sampling.masked.exact import padded
from tests.weights import keys_of

PAIRS = Enumerable(np.array([0.5, 0, 0, 0.5]), 2, 2)
PAIR_PROCESS = MaskedDiffusion(2, LogLinear())


def tabular(params, noisy, time, cond=None, memory=None, *, keys=None):
    """Return separate logits for each of the nine states, plus a linear map of the self-conditioning input."""
    logits = params["table"][noisy[:, 0] * 3 + noisy[:, 1]]
    memory = jnp.zeros((len(noisy), 2, 3)) if memory is None else memory
    return logits + (memory.reshape(len(noisy), -1) @ params["adapter"]).reshape(logits.shape)


PAIR_RECALL = SoftEmbedding(PAIR_PROCESS, lambda params: params["embedding"], 3)


def start_of_pairs():
    shapes = {"table": (9, 2, 3), "embedding": (2, 3), "adapter": (6, 6)}
    rng = np.random.default_rng(1)
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def trained():
    """Return parameters after training with the two-pass objective at rate 1/2."""
    steps, size = 800, 64
    objective = RevealNelbo(randomly_self_conditioned(tabular, PAIR_RECALL, 0.5), PAIR_PROCESS)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, steps))
    tokens = jnp.broadcast_to(jnp.arange(size)[:, None] % 2, (size, 2))
    batch = {"tokens": tokens, "weights": jnp.ones(tokens.shape)}

    @optimized
    def train(params):
        def step(carry, index):
            params, state = carry
            noise = draws(jax.random.key(3), "train", index, size)
            gradient = jax.grad(lambda params: objective(params, batch, noise)[0] / size)(params)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))[0][0]

    return train(start_of_pairs())


@pytest.mark.parametrize("passes", [1, 3])
def test_bounds_of_the_trained_network_reach_the_entropy(trained, passes):
    """It is ln 2 nats; before training they are far from it."""
    denoiser = self_conditioned(tabular, PAIR_RECALL, passes)
    bound, before = (
        PAIRS.table @ PAIRS.expected_bound(partial(denoiser, each)) for each in (trained, start_of_pairs())
    )
    assert bound == pytest.approx(np.log(2), abs=0.02) and before > 1


@pytest.mark.parametrize("self_conditioning", [PAIR_RECALL, None], ids=["memory", "none"])
def test_self_conditioning_adds_no_dependence_within_a_step(trained, self_conditioning):
    """One step draws all four strings uniformly, and one position per step draws only 00 and 11."""
    size = 8192
    policy = Policy(random_order_step)
    sampler = optimized(MaskedSampler(tabular, PAIR_PROCESS, policy, Draw(2), "none", self_conditioning))
    for steps, expected in ((1, [0.25] * 4), (2, [0.5, 0, 0, 0.5])):
        rows = padded(grid(Linear(), steps, 2, end=0.0), 2)
        tokens = np.asarray(sampler(trained, keys_of(size), jnp.full((size, 2), 2), rows).tokens)
        np.testing.assert_allclose(np.bincount(tokens @ [2, 1], minlength=4) / size, expected, atol=0.03)
