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
from diffusion.rng import draws, example_keys
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import grid
from diffusion.sampling.masked.policies import Policy, ancestral_step, random_order_step
from diffusion.sampling.masked.sampler import MaskedSampler
from diffusion.schedules.masking import Linear, LogLinear

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

    @jax.jit
    def train(params):
        def step(carry, index):
            params, state = carry
            noise = draws(jax.random.key(3), "train", index, size)
            gradient = jax.grad(lambda params: objective(params, batch, noise)[0] / size)(params)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))[0][0]

    return train(start_of_pairs())


def reachable(params, depth=4):
    """Return every (state, prediction) that a sampler can reach by idle steps and by reveals of one position."""
    frontier = [(jnp.array([[2, 2]]), PAIR_RECALL.empty(jnp.array([[2, 2]])))]
    for _ in range(depth):
        following = []
        for state, memory in frontier:
            logits = tabular(params, state, None, None, memory)
            yield state[0].tolist(), np.asarray(jax.nn.softmax(logits[0, :, :2], axis=-1))
            places = [(place, value) for place in (0, 1) for value in (0, 1)] if (state == 2).all() else []
            for after in (state, *(state.at[0, place].set(value) for place, value in places)):
                following.append((after, PAIR_RECALL(params, logits, state, after)))
        frontier = following


def worst(params):
    """Return the largest distance of a reachable prediction from the exact posterior."""
    errors = []
    for state, p in reachable(params):
        for place in (0, 1):
            if state[place] == 2:
                other = state[1 - place]
                exact = np.full(2, 0.5) if other == 2 else np.eye(2)[other]
                errors.append(np.abs(p[place] - exact).max())
    return max(errors), len(errors)


def test_trained_network_reaches_the_exact_posterior(trained):
    """Its bounds reach the entropy, ln 2 nats, and every reachable prediction is the exact posterior."""
    for passes in (1, 2, 3):
        bound = PAIRS.expected_bound(partial(self_conditioned(tabular, PAIR_RECALL, passes), trained))
        assert PAIRS.table @ bound == pytest.approx(np.log(2), abs=0.02)
    assert worst(trained)[0] < 0.05 and worst(trained)[1] > 20
    assert worst(start_of_pairs())[0] > 0.5


@pytest.mark.parametrize("self_conditioning", [PAIR_RECALL, None], ids=["memory", "none"])
def test_self_conditioning_adds_no_dependence_within_a_step(trained, self_conditioning):
    """One step draws all four strings uniformly, and one position per step draws only 00 and 11."""
    size = 8192
    keys, prompt = example_keys(jax.random.key(0), jnp.arange(size)), jnp.full((size, 2), 2)
    for policy, steps, expected in (
        (Policy(ancestral_step), 1, [0.25] * 4),
        (Policy(random_order_step), 2, [0.5, 0, 0, 0.5]),
    ):
        sampler = MaskedSampler(tabular, PAIR_PROCESS, policy, Draw(2), "none", self_conditioning)
        rows = grid(Linear(), steps, 2, end=0.0)
        tokens = np.asarray(jax.jit(sampler)(trained, keys, prompt, rows).tokens)
        shares = np.bincount(tokens @ [2, 1], minlength=4) / size
        np.testing.assert_allclose(shares, expected, atol=0.03)
