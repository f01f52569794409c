"""What the policies of a config read, as they declare it: logits of other positions are not computed."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.processes.masking import MaskedDiffusion
from diffusion.sampling.masked.grid import grid
from diffusion.sampling.masked.policies import StepInputs
from diffusion.schedules.masking import LogLinear
from experiments.families.masked_sampling import POLICIES
from tests.small_configs import small_config
from tests.weights import keys_of

SIZE, LENGTH, MASK = 64, 12, 7
PROCESS = MaskedDiffusion(MASK, LogLinear())
OPTIONS = [{}, {"sample__precision": "mdlm_float32"}, {"sample__remask__scores": "random"}]
OPTIONS += [{"sample__remask__planner": True}, {"sample__remask__adaptive": True}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", POLICIES)
def test_masks_do_not_depend_on_what_a_policy_does_not_read(name, options):
    """In the middle of sampling, with a prompt; the policies that read everything do."""
    policy = POLICIES[name](small_config(**options).sample, PROCESS)
    row = jax.tree.map(lambda column: column[2], grid(PROCESS.schedule, 5, LENGTH))
    state = jax.random.randint(jax.random.key(1), (SIZE, LENGTH), 0, MASK)
    masked = jax.random.bernoulli(jax.random.key(2), 0.5, (SIZE, LENGTH))
    fixed = jnp.broadcast_to(jnp.arange(LENGTH)[None] < 2, masked.shape) & ~masked

    def masks(seed, changed):
        """The masks for other proposals and probabilities where `changed`."""
        proposal, log_prob, race = (
            jnp.where(changed, jax.random.uniform(jax.random.key(seed + field), masked.shape), 0.5)
            for field in range(3)
        )
        tokens = jnp.where(masked, (MASK * proposal).astype(jnp.int32), state)
        inputs = StepInputs(masked, fixed, tokens, jnp.log(log_prob), race, jnp.zeros(masked.shape))
        extra = policy.init(keys_of(SIZE, 3), fixed)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(policy.select(keys_of(SIZE, 4), inputs, row, extra))]

    unread = {"none": jnp.ones_like(masked), "masked": ~masked, "all": jnp.zeros_like(masked)}[policy.reads]
    chex.assert_trees_all_equal(masks(10, unread), masks(20, unread))
    if name in ("confidence", "remdm_conf", "confidence_star") or policy.reads == "all":
        with pytest.raises(AssertionError):
            chex.assert_trees_all_equal(masks(10, ~unread), masks(20, ~unread))
