"""Block diffusion from a config: what is trained, scored and sampled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import bd3lm
from diffusion.rng import example_keys
from experiments import families
from experiments.families import blocks, causal, masked
from experiments.plan import resolve
from tests.small_configs import loss_and_bound
from tests.weights import randomized

VOCABULARY, LENGTH, SIZE = 11, 8, 4
SMALL = {"data.vocab_size": VOCABULARY, "data.length": LENGTH, "model.blocks": 1, "model.hidden": 16}
ROW = "BD3-LM, blocks of 4"


def config_of(row=ROW, **overrides):
    config = bd3lm.get_config("debug")
    rows = {each["name"]: each["overrides"] for each in bd3lm.rows(config)}
    return resolve(config, rows[row] | SMALL | {"model.cond_dim": 8} | overrides, 0)


def test_each_row_has_its_family_and_the_same_network():
    found = [families.family_of(config_of(row)) for row in (ROW, "MDLM", "AR")]
    assert found == [blocks, masked, causal]
    trees = [families.system(config_of(row), VOCABULARY).init for row in (ROW, "MDLM")]
    shapes = [jax.tree.map(jnp.shape, jax.eval_shape(init, jax.random.key(0))) for init in trees]
    assert shapes[0] == shapes[1], "a row may start from MDLM's weights"


@pytest.mark.parametrize(("name", "close"), [("nelbo_reveal", 1e-5), ("nelbo", 0.1)])
def test_the_loss_is_a_draw_of_the_bound_and_has_a_gradient(name, close):
    config = config_of(**{"objective.name": name})
    loss, bound, gradients = loss_and_bound(config, VOCABULARY)
    assert loss == pytest.approx(bound, rel=close)
    assert np.isfinite(gradients).all() and gradients.max() > 0


@pytest.mark.parametrize("length", [LENGTH, 3 * LENGTH])
def test_samples_follow_the_prompt_also_beyond_the_window(length):
    config = config_of(**{"sample.length": length})
    system = families.system(config, VOCABULARY)
    prompt = np.full((SIZE, length), VOCABULARY, np.int32)
    prompt[:, 0] = 3
    keys = example_keys(jax.random.key(0), jnp.arange(SIZE))
    samples = jax.jit(families.sampler(config, system))(randomized(system.init, 0.3), keys, prompt)
    assert (samples.tokens[:, 0] == 3).all() and samples.tokens.max() < VOCABULARY
    (call,) = blocks.calls(config, system)
    assert (samples.evaluations == call.turns).all() and call.turns == length // 4 * (config.sample.steps + 2)
