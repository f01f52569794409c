"""Losses in pieces (`objective.pieces`) are those of all logits, of which no more than a piece is in memory."""

import math
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.rng import draws
from diffusion.train.flops import programs
from diffusion.train.mesh import batch_sharding, make_mesh
from diffusion.train.step import gradients
from experiments import families
from experiments.flops import training_flops
from tests.small_configs import CAUSAL, small_config
from tests.weights import randomized

VOCABULARY, LENGTH, BATCH, PIECES = 211, 12, 8, 5
ROWS = math.ceil(BATCH * LENGTH / PIECES)  # of a piece
DIGITS = {"codec.digits": 3, "codec.merge": "sum"}
PAIRS = {"data.source": "dialects", "model.net": "encoder_decoder", "encoder_decoder.decoder_blocks": 1}
PAIRS |= {"process.prediction": "clean", "process.schedule": "sigma_is_time"}
CASES = {
    "nelbo": {},
    "nelbo_reveal": {"objective.name": "nelbo_reveal"},
    "cross_entropy": {"objective.name": "cross_entropy"},
    "sub-tokens": DIGITS | {"objective.name": "nelbo_reveal"},
    "sub-tokens, joint": DIGITS | {"objective.target": "joint"},
    "self-conditioned": {"memory.adapter": "linear", "memory.rate": 0.5},
    "autoregressive": CAUSAL,
    "autoregressive, given first": CAUSAL | {"model.start": "window"},
    "autoregressive, sub-tokens": CAUSAL | {"codec.digits": 3},
    "blocks": {"process.name": "blocks", "model.adaln": False},
    "uniform": {"process.name": "uniform"},
    "errors": {"objective.name": "errors", "predictor.kind": "head"}
    | {"predictor.labels": "likelihood", "predictor.judge": "AR"},
    "embedding": PAIRS | {"objective.name": "embedding", "embedding.mans.map": "shift", "embedding.scp.gap": "fixed"},
    "next_target": PAIRS | {"objective.name": "next_target", "encoder_decoder.kind": "causal"},
}


def config_of(case, pieces):
    changes = {"data.length": LENGTH, "data.source_length": LENGTH, "objective.pieces": pieces}
    return small_config(**CASES[case], **changes)


def batch_of(size):
    """Return texts with sources and padding."""
    rng = np.random.default_rng(0)
    tokens, source = rng.integers(0, VOCABULARY, (2, size, LENGTH)).astype(np.int32)
    weights = np.ones((size, LENGTH), np.float32)
    weights[1, 7:] = 0
    batch = {"tokens": tokens, "weights": weights, "source": source, "source_weights": weights}
    return jax.tree.map(jnp.asarray, batch)


def losses(case, pieces):
    """Return random weights, and the function of them that gives both losses and the gradient of training."""
    config, batch, noise = config_of(case, pieces), batch_of(BATCH), draws(jax.random.key(1), "train", 0, BATCH)
    system = families.system(config, VOCABULARY)
    objective = families.objective(config, system)

    def both(params):
        validation = objective(jax.lax.stop_gradient(params), batch, noise, False)[0]
        return objective(params, batch, noise)[0] / (BATCH * LENGTH), validation

    return randomized(system.init), jax.value_and_grad(both, has_aux=True)


def arrays(jaxpr):
    """Yield the shapes of all arrays of a program and of those inside of it."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.shape for variable in equation.outvars)
        for inner in programs(equation.params):
            yield from arrays(getattr(inner, "jaxpr", inner))


def most_rows(run, params):
    """Return the number of rows of the largest array with one entry per class in a row."""
    classes = range(VOCABULARY, VOCABULARY + 3)  # with a mask and padding
    shapes = (shape for shape in arrays(jax.make_jaxpr(run)(params).jaxpr) if set(shape) & set(classes))
    return max(math.prod(shape) // max(set(shape) & set(classes)) for shape in shapes)


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_those_of_all_logits(case):
    params, run = losses(case, PIECES)
    _, expected = losses(case, 0)
    values = jax.jit(lambda params: (run(params), expected(params)))(params)
    chex.assert_trees_all_close(*values, rtol=2e-4, atol=2e-5)
    if case != "autoregressive, sub-tokens":  # they are few
        assert most_rows(run, params) == ROWS < most_rows(expected, params)


@pytest.mark.parametrize("case", ["nelbo", "autoregressive", "uniform"])
def test_pieces_are_of_the_examples_of_a_device(case):
    """Of a mesh of eight with two micro-batches: no feature is gathered from another device."""
    size = 32
    batch, mesh = batch_of(size), make_mesh(4, 2, 1)

    def run(pieces):
        config = config_of(case, pieces)
        system = families.system(config, VOCABULARY)
        function = partial(gradients, families.objective(config, system), accumulate=2)
        noise = draws(jax.random.key(1), "train", 0, size)
        return randomized(system.init), jax.jit(lambda params, batch: function(params, batch, noise))

    params, everything = run(0)
    expected = everything(params, batch)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(batch, batch_sharding(mesh))
        program = run(PIECES)[1].lower(params, sharded).compile()
        value = program(params, sharded)
    chex.assert_trees_all_close(jax.device_get(value), jax.device_get(expected), rtol=2e-4, atol=2e-5)
    assert f"f32[{size // 2 * LENGTH},16]" not in program.as_text()  # the features of a micro-batch


def test_a_head_that_is_computed_again_counts_as_executed():
    """And not among the operations of the model, which does not depend on the pieces."""
    config = config_of("autoregressive", PIECES)
    model, executed = (training_flops(config, VOCABULARY, pieces=pieces) for pieces in (0, PIECES))
    head = 2 * config.model.hidden * (VOCABULARY + 1)  # operations of a token
    assert executed - model == head * (4 * PIECES * ROWS - 3 * BATCH * LENGTH)
    assert model == training_flops(config_of("autoregressive", 0), VOCABULARY)
