"""The models that draw pictures from prompts, and what rewards them: trained ones, and exact ones."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion.glyphs import world
from diffusion.glyphs.checker import graded
from diffusion.glyphs.prompts import encode, parse
from diffusion.sampling.gaussian.lidar import kernel_logits
from diffusion.train.weights import load_weights
from diffusion.types import Params
from experiments import families
from experiments.families.guidance import Reward, Told
from experiments.plan import Job, read_config
from experiments.run_context import Context, trained_weights


class Slot(NamedTuple):
    """A prompt, and which of its repetitions this is: tasks with few prompts ask them more than once."""

    prompt: str
    repetition: int


class Model(NamedTuple):
    """What is sampled from and what rewards: parameters, what prompts are to the model, and the rewards of pictures."""

    params: Any
    reward_params: Any
    told: Any  # arrays [slots, ...]
    reward: Any  # (reward_params, clean, told) -> [B], usable while sampling
    judge: Any  # (pictures [P, n, H, W, C], told) -> [P, n], of finished pictures


def opened(job: Context, spec: Job, asked: list[Slot]) -> Model:
    """The trained model with its learned reward, or exact models of sets of pictures with the rules as reward."""
    if job.config.model.net == "picture_oracle":
        return exact_model(job, asked)
    params = trained_weights(spec, job.config, job.system, job.mesh, job.workdir)
    folder = job.workdir / "jobs" / spec.needs[-1]
    config = read_config(folder)
    judge = families.system(config, job.dataset.tokenizer.vocab_size)
    if config.model.net != "reward":
        raise ValueError(f"judge.row: {job.config.judge.row!r} is a {config.model.net}; name a row that is a reward")
    reward_params, reward = load_weights(folder / "weights", judge.init, job.mesh), learned_reward(judge)

    @jax.jit
    def rounded_reward(reward_params, pictures, told):
        clean = job.system.levels.rounded(pictures.reshape(-1, *pictures.shape[2:]))
        return reward(reward_params, clean, told).reshape(pictures.shape[:2])

    def judged(pictures, told):
        return np.asarray(rounded_reward(reward_params, pictures, told))

    told = np.stack([encode(slot.prompt) for slot in asked])
    return Model(params, reward_params, told, reward, judged)


def learned_reward(judge: families.System) -> Reward:
    """The number that a network gives a picture and its prompt."""

    def reward(reward_params, clean, told):
        repeated = jnp.repeat(told, len(clean) // len(told), axis=0)
        return judge.denoiser(reward_params, clean, jnp.zeros(len(clean)), repeated)

    return reward


def nearest_worth(reward_params: Params, clean: Array, told: Told) -> Float[Array, " B"]:
    """What the nearest picture of a prompt's set is worth; told are pictures, their worth, and which prompt it is."""
    pools, worth = told[:2]
    groups = clean.reshape(len(pools), -1, pools.shape[-1])
    near = jax.vmap(kernel_logits, in_axes=(0, 0, None, None))(pools, groups, 1.0, 1.0)
    return jnp.take_along_axis(worth, jnp.argmax(near, axis=-1), axis=1).reshape(-1)


def exact_model(job: Context, asked: list[Slot]) -> Model:
    """For every prompt a set of pictures, of which some fulfill it; rewards are the share of the prompt fulfilled.

    While sampling the reward of a state is that of the nearest picture of its set. This tier tells how methods work,
    without any training; its reward is the truth itself.
    """
    options = job.config.sample.gaussian
    metadata = [parse(slot.prompt) for slot in asked]
    pools = [
        world.pool(slot.repetition, told, options.pool, options.pool_correct).images
        for slot, told in zip(asked, metadata, strict=True)
    ]
    worth = [[graded(one, told) for one in pool] for pool, told in zip(pools, metadata, strict=True)]
    pools = np.stack([2 * pool.reshape(len(pool), -1) - 1 for pool in pools]).astype(np.float32)

    def judged(pictures, told):
        shown = np.clip((np.asarray(pictures) + 1) / 2, 0, 1)
        pairs = zip(shown, np.asarray(told[2]), strict=True)
        return np.array([[graded(one, metadata[slot]) for one in group] for group, slot in pairs], np.float32)

    return Model({}, {}, (pools, np.array(worth, np.float32), np.arange(len(asked))), nearest_worth, judged)
