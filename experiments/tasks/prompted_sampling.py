"""Sets of images from prompts, and the cache of the lookahead samples that guide them."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from diffusion.rng import example_keys, named
from diffusion.sampling.gaussian.lidar import Lookahead
from diffusion.sampling.gaussian.sampler import take_rows
from diffusion.storage import cache_of, written
from diffusion.train.mesh import batch_sharding, shards
from experiments.families.guidance import GuidedSampler
from experiments.identity import digest, to_json
from experiments.run_context import Run
from experiments.tasks.prompted_models import Model, Slot


@dataclass
class Drawing:
    """Sets of images of every slot [P, N, H, W, C], in batches of `sample.batch` prompts, and their seconds.

    Programs are compiled, and run once, before the clock starts. An image is the same for every batch size.
    """

    run: Run
    model: Model
    slots: list[Slot]
    sampler: GuidedSampler
    programs: dict[str, Any] = field(default_factory=dict)

    def __call__(self, number: int) -> tuple[Float[np.ndarray, "P N H W C"], dict[str, float]]:
        """Set `number`, with the seconds of all phases and of looking ahead alone."""
        ahead, before = self.load_lookahead(number) if self.sampler.lookahead is not None else (None, 0.0)
        images, seconds = [], 0.0
        for slots, share in self.batches("sampling"):
            drawn, spent = self.timed("draw", self.sampler.draw, self.inputs(number, slots, ahead))
            images.append(np.asarray(drawn))
            seconds += spent * share
        images = np.concatenate(images)[: len(self.slots)]
        return images, {"seconds_per_prompt": seconds + before, "lookahead_seconds_per_prompt": before}

    def inputs(self, number: int, slots: Int[np.ndarray, " P"], ahead: Lookahead | None) -> tuple:
        """What `GuidedSampler.draw` reads for some slots of a set, on all devices."""
        rows = batch_sharding(self.run.mesh)
        keys = jax.device_put(self.keys("target", number, slots, self.sampler.draws), rows)
        conditioning, lookahead = (
            jax.device_put(take_rows(tree, slots), rows) for tree in (self.model.conditioning, ahead)
        )
        strengths = {name: jnp.float32(value) for name, value in self.sampler.strengths.items()}
        return self.model.params, self.model.reward_params, keys, conditioning, lookahead, strengths

    def traced(self, slots: Int[np.ndarray, " P"]) -> tuple[Any, Any]:
        """Images of some slots of the first set, drawn again in one batch, with what the method says of all steps."""
        ahead = self.load_lookahead(0)[0] if self.sampler.lookahead is not None else None
        size, _ = next(self.batches("tracing"))
        inputs = self.inputs(0, np.resize(slots, len(size)), ahead)
        with jax.set_mesh(self.run.mesh):
            return jax.device_get(jax.jit(self.sampler.draw)(*inputs))

    def batches(self, what: str) -> Iterator[tuple[Int[np.ndarray, " P"], float]]:
        """The slots of every batch, the last one filled up, and the share of it that is wanted."""
        count = len(self.slots)
        # A few prompts are no reason to compute a whole batch.
        size = min(self.run.config.sample.batch, -(-count // shards(self.run.mesh)) * shards(self.run.mesh))
        for start in tqdm(range(0, count, size), desc=what, disable=not sys.stderr.isatty(), leave=False):
            yield np.minimum(np.arange(start, start + size), count - 1), min(size, count - start) / size

    def keys(self, purpose: str, number: int, slots: Int[np.ndarray, " P"], draws: int) -> Array:
        """One key for each sample of each slot: equal slots of equal sets start from equal noise in every method."""
        root = jax.random.fold_in(named(self.run.root, purpose), number)
        slot_keys = example_keys(root, jnp.asarray(slots))
        return jax.vmap(lambda key: example_keys(key, jnp.arange(draws)))(slot_keys)

    def timed(self, name: str, function: Any, inputs: tuple) -> tuple[Array, float]:
        """What a function gives, and how long it took once it was compiled and warm."""
        if name not in self.programs:
            rows = batch_sharding(self.run.mesh)
            with jax.set_mesh(self.run.mesh):
                self.programs[name] = jax.jit(function, out_shardings=rows).lower(*inputs).compile()
            jax.block_until_ready(self.programs[name](*inputs))
        clock = time.perf_counter()
        result = jax.block_until_ready(self.programs[name](*inputs))
        return result, time.perf_counter() - clock

    def judged(self, images: Array, conditioning: Any) -> tuple[Float[np.ndarray, "P n"], float]:
        """The rewards of images, and how long they took once the judge was warm."""
        if "judge" not in self.programs:
            self.programs["judge"] = self.model.judge
            self.model.judge(images, conditioning)
        clock = time.perf_counter()
        return self.model.judge(images, conditioning), time.perf_counter() - clock

    def load_lookahead(self, number: int) -> tuple[Lookahead, float]:
        """The lookahead samples of all slots with their rewards, and the seconds that they took when they were made.

        They are kept in the cache under the hash of all that decides them; scale, strength and stop do not.
        """
        config, options = self.run.config, self.run.config.sample.gaussian
        decides = {name: to_json(options)["lookahead"][name] for name in ("particles", "steps", "path", "solver")}
        decides |= {
            "weights": [config.checkpoint, *self.run.job.needs.values()],
            "model": to_json(config.model),
            "set": number,
        }
        decides |= {"guidance": options.guidance, "prompts": self.slots, "seed": config.seed}
        decides |= {"pool": [options.pool, options.pool_correct, options.deviation]}
        file = cache_of(self.run.workdir) / "lookahead" / f"{digest(decides)}.npz"
        if not file.exists():
            self.write_lookahead(number, file)
        with np.load(file) as stored:
            if list(stored["prompts"]) != [slot.prompt for slot in self.slots]:
                raise ValueError(f"sample: {file} holds lookahead samples of other prompts; delete it and run again")
            samples, rewards, seconds = stored["samples"], stored["rewards"], float(stored["seconds"])
        # The public code's "top" is a random subset, the same ranks for every prompt.
        ranks = np.random.default_rng(42).permutation(self.sampler.particles)[: options.lookahead.top or None]
        return Lookahead(samples[:, ranks].reshape(len(self.slots), len(ranks), -1), rewards[:, ranks]), seconds

    def write_lookahead(self, number: int, file: Path) -> None:
        """Draw and judge the lookahead samples of all slots, and write them whole or not at all."""
        samples, rewards, seconds = [], [], 0.0
        for slots, share in self.batches("looking ahead"):
            conditioning = jax.tree.map(jnp.asarray, take_rows(self.model.conditioning, slots))
            inputs = (self.model.params, self.keys("lookahead", number, slots, self.sampler.particles), conditioning)
            x, spent = self.timed("look", self.sampler.lookahead, inputs)
            worth, judging = self.judged(x, conditioning)
            rewards.append(worth)
            seconds += (spent + judging) * share
            samples.append(np.asarray(x))
        count = len(self.slots)
        rewards = finite(np.concatenate(rewards)[:count], self.slots)
        names = [slot.prompt for slot in self.slots]
        samples = np.concatenate(samples)[:count]
        with written(file) as partial:
            np.savez(partial, samples=samples, rewards=rewards, seconds=seconds, prompts=names)


def finite(rewards: Float[np.ndarray, "P n"], slots: list[Slot]) -> Float[np.ndarray, "P n"]:
    """The rewards; raises ValueError naming the first prompt of which one is no number."""
    broken = np.argwhere(~np.isfinite(rewards))
    if len(broken):
        slot, sample = (int(index) for index in broken[0])
        raise ValueError(
            f"judge.row: the reward of sample {sample} of {slots[slot].prompt!r} is {rewards[slot, sample]}; train the "
            "reward again, or name another row"
        )
    return rewards
