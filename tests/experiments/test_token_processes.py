"""Uniform-state and block diffusion from a config: what is trained, scored and sampled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import bd3lm, udlm
from experiments import families
from experiments.families import blocks, causal, masked, uniform
from experiments.identity import train_identity
from experiments.plan import resolve
from tests.small_configs import loss_and_bound
from tests.weights import keys_of, randomized

VOCABULARY, LENGTH, SIZE = 11, 8, 4
SMALL = {"data.vocab_size": VOCABULARY, "data.length": LENGTH, "model.blocks": 1, "model.hidden": 16}
SMALL |= {"model.cond_dim": 8, "sample.steps": 2}
UDLM, BLOCKS = (udlm, "UDLM"), (bd3lm, "BD3-LM, blocks of 4")


def config_of(place, **overrides):
    table, row = place
    config = table.get_config("debug")
    rows = {each["name"]: each["overrides"] for each in table.rows(config)}
    return resolve(config, rows[row] | SMALL | overrides, 0)


def shapes(place):
    init = families.system(config_of(place), VOCABULARY).init
    return jax.tree.map(jnp.shape, jax.eval_shape(init, jax.random.key(0)))


def test_each_row_has_its_family_and_networks_of_equal_sizes():
    for place, family in ((UDLM, uniform), (BLOCKS, blocks)):
        found = [families.family_of(config_of((place[0], row))) for row in (place[1], "MDLM", "AR")]
        assert found == [family, masked, causal]
    assert shapes(BLOCKS) == shapes((bd3lm, "MDLM")), "a row may start from MDLM's weights"
    sizes = [
        sum(map(np.prod, jax.tree.leaves(shapes(place), is_leaf=lambda leaf: isinstance(leaf, tuple))))
        for place in (UDLM, (udlm, "MDLM"))
    ]
    assert sizes[1] - sizes[0] == 16 + 16 + 1, "the embedding of the mask, and its column and bias of the head"
    # Trainings that were done before the field was there keep their ids.
    assert "name" not in train_identity(config_of((udlm, "MDLM"))).get("process", {})
    assert train_identity(config_of(UDLM))["process"]["name"] == "uniform"


@pytest.mark.parametrize(
    ("place", "objective", "close"),
    # Those of nelbo and uniform have one mean, but for times below the smallest.
    [(UDLM, {}, 0.1), (BLOCKS, {"objective.name": "nelbo_reveal"}, 1e-5), (BLOCKS, {"objective.name": "nelbo"}, 0.1)],
    ids=["uniform", "nelbo_reveal", "nelbo"],
)
def test_the_loss_is_a_draw_of_the_bound_and_has_a_gradient(place, objective, close):
    loss, bound, gradients = loss_and_bound(config_of(place, **objective), VOCABULARY)
    assert loss == pytest.approx(bound, rel=close)
    assert np.isfinite(gradients).all() and gradients.max() > 0


@pytest.mark.parametrize(
    ("place", "family", "length", "turns"),
    # Each block has its steps, the final one and the pass that stores its keys and values.
    [(UDLM, uniform, LENGTH, 2 + 1), (BLOCKS, blocks, LENGTH, 2 * (2 + 2)), (BLOCKS, blocks, 3 * LENGTH, 6 * (2 + 2))],
    ids=["uniform", "blocks", "blocks beyond the window"],
)
def test_samples_follow_the_prompt(place, family, length, turns):
    config = config_of(place, **({"sample.length": length} if length > LENGTH else {}))
    system = families.system(config, VOCABULARY)
    prompt = np.full((SIZE, length), VOCABULARY, np.int32)
    prompt[:, 0] = 3
    samples = jax.jit(families.sampler(config, system))(randomized(system.init, 0.3), keys_of(SIZE), prompt)
    assert (samples.tokens[:, 0] == 3).all() and samples.tokens.max() < VOCABULARY and samples.tokens.min() >= 0
    (call,) = family.calls(config, system)
    assert (samples.evaluations == call.turns).all() and call.turns == turns
