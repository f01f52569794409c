"""The config of a transformer with one block of width 16, the rows of a small table, and a draw of its loss."""

import jax
import jax.numpy as jnp
import numpy as np

from configs.base import defaults
from configs.recipes.small import tiny
from diffusion.rng import draws
from experiments import families
from experiments.plan import resolve
from tests.weights import randomized


def small_config(**overrides):
    """Return the config with overrides, such as sample__steps=3 for sample.steps."""
    config = tiny(defaults("test", "debug"))
    config.model.update(hidden=16, blocks=1, heads=2, cond_dim=8)
    return resolve(config, {name.replace("__", "."): value for name, value in overrides.items()}, 0)


CAUSAL = {"objective.name": "autoregressive", "model.causal": True, "model.adaln": False}
ROWS = [
    dict(name="Text", overrides={"sample.policy": "data"}, verbs=("sample",)),
    dict(name="AR", overrides=CAUSAL, verbs=("evaluate", "sample")),
    dict(name="MDLM, 4 steps", overrides={"sample.steps": 4}, verbs=("evaluate", "sample")),
    dict(name="MDLM, 8 steps", overrides={"sample.steps": 8}, verbs=("sample",)),
]


def judged_config():
    """Return the config of a table with these rows, whose judge is the row AR."""
    config = tiny(defaults("test", "debug"))
    config.judge.update(name="row", row="AR")
    return config


def loss_and_bound(config, vocabulary, size=512):
    """Return the loss, the first estimator's value and the largest gradients of the same draws of a random network."""
    system = families.system(config, vocabulary)
    tokens = np.random.default_rng(0).integers(0, vocabulary, (size, config.data.length)).astype(np.int32)
    batch = {"tokens": tokens, "weights": np.ones(tokens.shape, np.float32)}
    noise, objective = draws(jax.random.key(1), "train", 0, size), families.objective(config, system)
    estimate = families.estimate(config, system, families.estimators(config)[0])

    @jax.jit
    def numbers(params):
        loss, gradient = jax.value_and_grad(lambda params: objective(params, batch, noise, False)[0])(params)
        bound = estimate(
            lambda state, time: system.denoiser(params, state, time), system.process, tokens, batch["weights"], noise
        )
        return loss, bound.sum(), [jnp.abs(leaf).max() for leaf in jax.tree.leaves(gradient)]

    loss, bound, largest = numbers(randomized(system.init, 0.3))
    return float(loss), float(bound), np.array(largest)
