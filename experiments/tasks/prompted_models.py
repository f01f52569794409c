"""The models that draw images from prompts, and what rewards them: trained ones, and exact ones."""

from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from diffusion.glyphs import world
from diffusion.glyphs.checker import prompt_reward
from diffusion.glyphs.prompts import encode, parse
from experiments import families
from experiments.families import scorer
from experiments.families.exact import nearest_worth
from experiments.run_context import Run


class Slot(NamedTuple):
    """A prompt, and which of its repetitions this is: tasks with few prompts ask them more than once."""

    prompt: str
    repetition: int


class Model(NamedTuple):
    """A model of images with its reward: parameters, the conditioning of every slot, and rewards."""

    params: Any
    reward_params: Any
    conditioning: Any  # arrays [slots, ...]
    reward: Any  # (reward_params, clean, conditioning) -> [B], usable while sampling
    judge: Any  # (images [P, n, H, W, C], conditioning) -> [P, n], of finished images
    scorer: ConfigDict | None = None  # of a learned reward


def opened(run: Run, slots: list[Slot]) -> Model:
    """The trained model with its learned reward, or exact models of sets of images with the rules as reward."""
    if not run.family.TRAINED:
        return exact_model(run, slots)
    params = run.weights()
    config, judge, reward_params = run.load("scorer")
    if not families.is_reward(config):
        raise ValueError(f"judge.row: {run.config.judge.row!r} is a {config.model.net}; name a row that is a reward")
    reward = scorer.reward(judge)

    @jax.jit
    def rounded_reward(reward_params, images, conditioning):
        clean = run.system.pixels.rounded(images.reshape(-1, *images.shape[2:]))
        return reward(reward_params, clean, conditioning).reshape(images.shape[:2])

    def judged(images, conditioning):
        return np.asarray(rounded_reward(reward_params, images, conditioning))

    conditioning = np.stack([encode(slot.prompt) for slot in slots])
    return Model(params, reward_params, conditioning, reward, judged, config)


def exact_model(run: Run, slots: list[Slot]) -> Model:
    """For every prompt a set of images, of which some fulfill it; rewards are the share of the prompt fulfilled.

    While sampling the reward of a state is that of the nearest image of its set. This tier tells how methods work,
    without any training; its reward is the truth itself.
    """
    options = run.config.sample.gaussian
    metadata = [parse(slot.prompt) for slot in slots]
    pools = [
        world.pool(slot.repetition, entry, options.pool, options.pool_correct).images
        for slot, entry in zip(slots, metadata, strict=True)
    ]
    worth = [[prompt_reward(one, entry) for one in pool] for pool, entry in zip(pools, metadata, strict=True)]
    pools = np.stack([2 * pool.reshape(len(pool), -1) - 1 for pool in pools]).astype(np.float32)

    def judged(images, conditioning):
        shown = np.clip((np.asarray(images) + 1) / 2, 0, 1)
        pairs = zip(shown, np.asarray(conditioning[2]), strict=True)
        return np.array([[prompt_reward(one, metadata[slot]) for one in group] for group, slot in pairs], np.float32)

    return Model({}, {}, (pools, np.array(worth, np.float32), np.arange(len(slots))), nearest_worth, judged)
