"""Sampling of uniform-state diffusion under a reward: the best of several samples, FK steering, and LiDAR.

The reward of finished samples, lookahead samples among them, is computed on the host between two programs. FK steering
needs rewards of estimates inside its program, which are pairs of equal labels of tokens.
"""

import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from diffusion.sampling.uniform_lidar import Lookahead
from diffusion.train.mesh import check_batch
from experiments import families
from experiments.families import uniform_sampling
from experiments.run_context import Run
from experiments.tasks import token_batches, token_sampling
from experiments.tasks.token_batches import COLUMNS
from experiments.tasks.token_sampling import SampleSet, TokenTask

Reward = Callable[[Run, Int[np.ndarray, "N L"]], Float[np.ndarray, " N"]]
Columns = dict[str, np.ndarray]


def check(run: Run) -> None:
    """Raise ValueError for a batch of lookahead samples that the devices cannot share."""
    if run.config.sample.policy != "data" and run.config.sample.uniform.method == "lidar":
        check_batch(lookahead_batch(run), run.mesh, field="sample.uniform.lookahead.particles")


def generate(
    run: Run, task: TokenTask, reward: Reward, labels: Callable[[Run], Float[np.ndarray, "K G"]]
) -> tuple[list[SampleSet], dict[str, float]]:
    """Draw the sets of samples by the method of `sample.uniform`, and count the cost."""
    method, extra = run.config.sample.uniform.method, {}
    prompt, label = token_sampling.initial_states(run, task), token_sampling.labels(run)
    if method == "best_of":
        columns, seconds = best_of(run, reward, prompt, label)
    elif method == "steering":
        sample = families.sampler(run.config, run.system)
        columns, seconds = token_batches.draw_batches(run, sample, prompt, label, [(labels(run),)])
    else:
        columns, seconds, extra = guided(run, reward, prompt)
    sets, cost = token_sampling.finished(run, columns, label, seconds)
    return sets, cost | extra


def best_of(
    run: Run, reward: Reward, prompt: Int[np.ndarray, "N L"], label: Int[np.ndarray, " N"] | None
) -> tuple[Columns, float]:
    """The best of each `sample.uniform.best_of` samples, the first one of equals, and the seconds of one.

    Counts are sums over all samples.
    """
    count, sample = run.config.sample.uniform.best_of, families.sampler(run.config, run.system)
    label = None if label is None else np.repeat(label, count)
    drawn, seconds = token_batches.draw_batches(run, sample, np.repeat(prompt, count, axis=0), label)
    clock = time.perf_counter()
    best = np.argmax(reward(run, drawn["tokens"]).reshape(-1, count), axis=1)
    rewarding = (time.perf_counter() - clock) / len(prompt)
    columns = {name: drawn[name].reshape(-1, count).sum(axis=1) for name in COLUMNS}
    tokens = drawn["tokens"].reshape(-1, count, prompt.shape[1])[np.arange(len(best)), best]
    return columns | {"tokens": tokens}, count * seconds + rewarding


def guided(run: Run, reward: Reward, prompt: Int[np.ndarray, "N L"]) -> tuple[Columns, float, dict[str, float]]:
    """Samples guided by LiDAR, each set by lookahead samples of its own, and the seconds of one, and further figures.

    Lookahead samples and their rewards are shared out over the samples of a set, in evaluations and in seconds.
    """
    options, particles = run.config.sample, run.config.sample.uniform.lookahead.particles
    cheap = uniform_sampling.lookahead_sampler(run.config, run.system)
    ahead_prompt = np.broadcast_to(prompt[:1], (options.repeats * particles, prompt.shape[1]))
    ahead, ahead_seconds = token_batches.draw_batches(
        run, cheap, ahead_prompt, None, purpose="lookahead", size=lookahead_batch(run)
    )
    clock = time.perf_counter()
    rewards = reward(run, ahead["tokens"])
    rewarding = time.perf_counter() - clock
    parts = [np.split(each, options.repeats) for each in (ahead["tokens"], rewards)]
    inputs = [(Lookahead(*part),) for part in zip(*parts, strict=True)]
    sample = families.sampler(run.config, run.system)
    columns, seconds = token_batches.draw_batches(run, sample, prompt, None, inputs)
    shared = particles / options.count
    columns["evaluations"] = columns["evaluations"] + shared * ahead["evaluations"].mean()
    seconds += shared * ahead_seconds + rewarding / len(prompt)
    return columns, seconds, {"lookahead_reward": float(rewards.mean())}


def lookahead_batch(run: Run) -> int:
    """Lookahead samples of one program."""
    return min(run.config.sample.batch, run.config.sample.uniform.lookahead.particles)
