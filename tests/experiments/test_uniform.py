"""Uniform-state diffusion from a config: what is trained, scored and sampled."""

import jax
import numpy as np
import pytest

from configs import udlm
from experiments import families
from experiments.families import causal, masked, uniform
from experiments.identity import train_identity
from experiments.plan import resolve
from tests.small_configs import loss_and_bound
from tests.weights import keys_of, randomized

VOCABULARY, LENGTH, SIZE = 11, 8, 4
SMALL = {"data.vocab_size": VOCABULARY, "data.length": LENGTH, "model.blocks": 1, "model.hidden": 16}


def config_of(row="UDLM", **overrides):
    config = udlm.get_config("debug")
    rows = {each["name"]: each["overrides"] for each in udlm.rows(config)}
    return resolve(config, rows[row] | SMALL | {"model.cond_dim": 8} | overrides, 0)


def test_each_row_has_its_family():
    found = [families.family_of(config_of(row)) for row in ("UDLM", "MDLM", "AR")]
    assert found == [uniform, masked, causal]


def test_the_process_counts_where_it_is_not_masked():
    """Trainings that were done before the field was there keep their ids."""
    assert "name" not in train_identity(config_of("MDLM")).get("process", {})
    assert train_identity(config_of())["process"]["name"] == "uniform"


def test_networks_have_equal_sizes_but_for_the_mask():
    sizes = []
    for row in ("UDLM", "MDLM"):
        params = jax.eval_shape(families.system(config_of(row), VOCABULARY).init, jax.random.key(0))
        sizes.append(sum(leaf.size for leaf in jax.tree.leaves(params)))
    assert sizes[1] - sizes[0] == 16 + 16 + 1  # its embedding, and its column and bias of the head


def test_the_loss_is_a_draw_of_the_bound_and_has_a_gradient():
    config = config_of()
    loss, bound, gradients = loss_and_bound(config, VOCABULARY)
    # Of one mean, but for times below the smallest.
    assert loss == pytest.approx(bound, rel=0.1)
    assert np.isfinite(gradients).all() and gradients.max() > 0


def test_samples_are_tokens_after_the_prompt():
    config = config_of()
    system = families.system(config, VOCABULARY)
    prompt = np.full((SIZE, LENGTH), VOCABULARY, np.int32)
    prompt[:, 0] = 3
    samples = jax.jit(families.sampler(config, system))(randomized(system.init, 0.3), keys_of(SIZE), prompt)
    assert (samples.tokens[:, 0] == 3).all() and samples.tokens.max() < VOCABULARY and samples.tokens.min() >= 0
    (call,) = uniform.calls(config, system)
    assert (samples.evaluations == call.turns).all() and call.turns == config.sample.steps + 1
