"""Floating-point operations of a config's training step and of its sampler, as `diffusion.train.flops` counts them."""

import jax
from ml_collections import ConfigDict

from diffusion.rng import draws
from diffusion.train.flops import count
from diffusion.train.step import gradients
from experiments import families


def traceable(config: ConfigDict, remat: str = "none", pieces: int = 0) -> ConfigDict:
    """The config with attention that shows in a trace, which the kernel of an accelerator does not."""
    config = config.copy_and_resolve_references()
    config.model.update(attention="plain", remat=remat)
    config.objective.pieces = pieces
    return config


def training_flops(config: ConfigDict, vocabulary: int, remat: str = "none", pieces: int = 0) -> float:
    """Operations of one optimizer step: the objective over the whole batch with its metrics, and its gradient.

    With `remat` and `pieces`, also those that this policy and these pieces repeat. Objectives of masked tokens apply
    the head to these alone.
    """
    config = traceable(config, remat, pieces)
    system = families.system(config, vocabulary)
    objective, batch = families.objective(config, system), families.family_of(config).batch(config)

    def step(params, batch, root):
        noise = draws(root, "train", 0, config.train.batch)
        return gradients(objective, params, batch, noise, accumulate=1)

    key = jax.eval_shape(lambda: jax.random.key(0))
    # Pieces of rows are for batches with more masked tokens than the share that nearly always holds them.
    return count(step, jax.eval_shape(system.init, key), batch, key, taken=0.0)


def sampling_flops(config: ConfigDict, vocabulary: int, helper: ConfigDict | None = None) -> list[float]:
    """Operations of each of the programs `Family.calls`, for one batch; `helper` is the config of another network.

    They count the head at all tokens, of which masked samplers compute those that they read.
    """
    config = traceable(config)
    system = families.system(config, vocabulary)
    beside = families.system(traceable(helper), vocabulary) if helper else None
    key, flops = jax.eval_shape(lambda: jax.random.key(0)), []
    for call in families.family_of(config).calls(config, system, beside):
        params = [jax.eval_shape(init, key) for init in call.params]
        flops.append(count(call.function, *params, *call.rows, *call.scalars, taken=call.taken))
    return flops
