"""A small language model and its data for tests of training."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.dit import DiT
from diffusion.objectives.elbo import Nelbo
from diffusion.processes.masking import MaskedDiffusion
from diffusion.schedules.masking import LogLinear
from diffusion.train.optimizer import adamw
from tests.weights import randomized

MASK, LENGTH, BATCH = 11, 8, 8


@pytest.fixture(scope="session")
def net():
    return DiT(vocab_size=MASK + 1, hidden=16, blocks=2, heads=2, cond_dim=8, dropout=0.1)


@pytest.fixture(scope="session")
def objective(net):
    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        return net.apply({"params": params}, noisy, keys=keys)

    return Nelbo(denoiser, MaskedDiffusion(MASK, LogLinear()))


@pytest.fixture(scope="session")
def init(net):
    return lambda key: net.init(key, jnp.zeros((1, LENGTH), jnp.int32))["params"]


@pytest.fixture(scope="session")
def params(init):
    return randomized(init)


@pytest.fixture(scope="session")
def optimizer():
    return adamw(peak=1e-2, warmup=2, steps=10, decay="cosine")


def batch_at(step: int) -> dict[str, np.ndarray]:
    """Return a batch with padding, as a pure function of the step."""
    tokens = np.random.default_rng(step).integers(0, MASK, (BATCH, LENGTH), dtype=np.int32)
    weights = np.ones((BATCH, LENGTH), np.float32)
    weights[0, 5:] = 0
    return {"tokens": tokens, "weights": weights}


def stream(step: int):
    """Yield batches from a step on."""
    while True:
        yield batch_at(step)
        step += 1


@pytest.fixture(scope="session")
def poisoned(objective):
    """Return the objective, whose loss is no number where the second example has a weight above one."""

    def call(params, batch, noise, train=True):
        total, metrics = objective(params, batch, noise)
        factor = jnp.where(batch["weights"][1, 0] > 1, jnp.nan, 1.0)
        return total * factor, {"loss": (metrics["loss"][0] * factor, metrics["loss"][1])}

    return call
