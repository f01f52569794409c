"""A small network with self-conditioning, and runs of its sampler with a record of every evaluation."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from experiments import families
from tests.small_configs import small_config
from tests.weights import keys_of, randomized

MASK, LENGTH, SIZE, STEPS = 7, 6, 2, 12


def config_of(**overrides):
    fields = dict(data__length=LENGTH, memory__adapter="linear", sample__steps=STEPS, sample__final="draw")
    return small_config(**fields | overrides)


SYSTEM = families.system(config_of(), MASK)
PARAMS = randomized(SYSTEM.init, scale=0.3)
# The adapter is scaled up, so that the self-conditioning input changes the samples.
PARAMS["adapter"] = jax.tree.map(lambda leaf: 5 * leaf, PARAMS["adapter"])
ZERO = PARAMS | {"adapter": jax.tree.map(jnp.zeros_like, PARAMS["adapter"])}


def record(records, *arrays):
    """Append the values of `arrays` in every evaluation."""
    jax.debug.callback(lambda *values: records.append([np.asarray(value) for value in values]), *arrays, ordered=True)


def recorded(config, params=PARAMS, size=SIZE, seed=0, system=None):
    """Return the samples of a run, and (state, self-conditioning input, logits) of all evaluations in order."""
    system = system or families.system(config, MASK)
    records = []

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        assert keys is None
        logits = system.denoiser(params, noisy, time, cond, memory)
        memory_or_zeros = jnp.zeros((len(noisy), LENGTH, 16)) if memory is None else memory
        record(records, noisy, memory_or_zeros, logits)
        return logits

    sample = jax.jit(families.sampler(config, replace(system, denoiser=denoiser)))
    samples = jax.block_until_ready(sample(params, keys_of(size, seed), jnp.full((size, LENGTH), MASK)))
    jax.effects_barrier()
    return samples, [np.stack(arrays) for arrays in zip(*records, strict=True)]


next_memory = jax.jit(SYSTEM.self_conditioning)
