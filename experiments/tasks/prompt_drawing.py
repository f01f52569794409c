"""Images of text-to-image models, some prompts at a time: lookahead samples first, then the images and their scores."""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from tqdm import tqdm

from diffusion.rng import example_keys, named
from diffusion.sampling.gaussian.lidar import Lookahead
from diffusion.sampling.gaussian.sampler import take_rows
from diffusion.storage import cache_of
from diffusion.train.mesh import batch_sharding
from diffusion.types import Params
from experiments.families import text_to_image
from experiments.families.guidance import GuidedSampler
from experiments.families.text_to_image import Prompted
from experiments.identity import digest, to_json
from experiments.run_context import Run, in_batches
from experiments.tasks.pipelines import Pipeline
from experiments.tasks.prompt_files import Pool, read_pool, write_pool, write_prompt

Rewards = dict[str, Float[np.ndarray, "P n"]]


@dataclass
class Drawing:
    """Draws the images of prompts, `numbers` and their `metadata`, and writes them with their scores below `root`.

    Programs are compiled, and run once, before the clock starts. An image is the same for every batch size and number
    of devices: its noise depends on the seed, the number of its prompt and its own number alone.
    """

    run: Run
    pipeline: Pipeline
    numbers: list[int]
    metadata: list[dict[str, Any]]
    sampler: GuidedSampler
    root: Path
    programs: dict[str, Any] = field(default_factory=dict)
    memory: int = 0  # bytes of the largest program on one device, by the compiler

    def draw_all(self) -> None:
        """Draw, score and write all prompts, a batch at a time; each is written as soon as it is there."""
        size = self.run.config.sample.batch
        batches = list(in_batches(len(self.numbers), size))
        shown = sys.stderr.isatty()
        for rows in tqdm(batches, desc=self.run.job.row, unit="batch", disable=not shown, leave=False):
            wanted = rows[: len(set(rows.tolist()))]
            prompted = self.placed(take_rows(self.pipeline.prompted, rows))
            ahead, spent = (None, {}) if self.sampler.lookahead is None else self.look_ahead(rows, wanted, prompted)
            inputs = (self.pipeline.params, self.pipeline.rewards, self.keys("target", rows, self.sampler.draws))
            strengths = {name: jnp.float32(value) for name, value in self.sampler.strengths.items()}
            latents, sampling = self.timed("draw", self.sampler.draw, *inputs, prompted, ahead, strengths)
            images, decoding = self.timed("decode", self.decode, self.pipeline.rewards, latents)
            (saved, rewards, diversity), _ = self.timed("score", self.score, self.pipeline.rewards, images, prompted)
            saved, rewards = np.asarray(saved), self.finite(rewards, wanted)
            seconds = spent | {"sampling": sampling / len(wanted), "decoding": decoding / len(wanted)}
            for row, index in enumerate(wanted):
                scores: dict[str, Any] = {
                    "rewards": {name: each[row].tolist() for name, each in rewards.items()},
                    "seconds": {name: each[row] if isinstance(each, list) else each for name, each in seconds.items()},
                    "memory": self.memory,
                }
                scores |= {"diversity": float(diversity[row])} if diversity is not None else {}
                write_prompt(self.root, self.numbers[index], self.metadata[index], saved[row], scores)

    def placed(self, rows: Any) -> Any:
        """Arrays [P, ...] on the devices of this process."""
        return jax.device_put(rows, batch_sharding(self.pipeline.mesh))

    def keys(self, purpose: str, rows: Int[np.ndarray, " P"], draws: int) -> Array:
        """One key for each sample of each prompt: equal prompts start from equal noise in every method."""
        root = named(jax.random.key(self.run.config.seed), purpose)
        of_prompts = example_keys(root, jnp.asarray([self.numbers[index] for index in rows]))
        return self.placed(jax.vmap(lambda key: example_keys(key, jnp.arange(draws)))(of_prompts))

    def timed(self, name: str, function: Any, *inputs: Any) -> tuple[Any, float]:
        """What a function gives, and how long it took once it was compiled and warm."""
        if name not in self.programs:
            with jax.set_mesh(self.pipeline.mesh):
                rows = batch_sharding(self.pipeline.mesh)
                self.programs[name] = jax.jit(function, out_shardings=rows).lower(*inputs).compile()
            needs = self.programs[name].memory_analysis()
            assert needs is not None  # CPU, GPU and TPU compilers provide it
            sizes = (needs.argument_size_in_bytes, needs.output_size_in_bytes, needs.temp_size_in_bytes)
            self.memory = max(self.memory, sum(sizes) - needs.alias_size_in_bytes)
            jax.block_until_ready(self.programs[name](*inputs))
        clock = time.perf_counter()
        result = jax.block_until_ready(self.programs[name](*inputs))
        return result, time.perf_counter() - clock

    def decode(self, params: Params, latents: Float[Array, "P n h w c"]) -> Float[Array, "P n H W 3"]:
        """Images in [0, 1]."""
        images = text_to_image.decoder(self.run.config)(params["vae"], latents.reshape(-1, *latents.shape[2:]))
        return images.reshape(*latents.shape[:2], *images.shape[1:])

    def score(
        self, params: Params, images: Float[Array, "P n H W 3"], prompted: Prompted
    ) -> tuple[UInt8[Array, "P n H W 3"], dict[str, Float[Array, "P n"]], Float[Array, " P"] | None]:
        """Images as bytes, all their rewards, and the diversity of the images of each prompt in CLIP's features."""
        count, flat = images.shape[1], images.reshape(-1, *images.shape[2:])
        rewards = self.rewards(tuple(self.pipeline.scorers), params, images, prompted)
        clip, diversity = self.pipeline.scorers.get("clip"), None
        if clip is not None and clip.features is not None and count > 1:
            features = clip.features(params["clip"], flat, True).reshape(len(images), count, -1)
            # The mean squared distance of two of n points is 2 n / (n - 1) times their mean variance.
            variance = jnp.square(features - features.mean(axis=1, keepdims=True)).sum(axis=-1).mean(axis=1)
            diversity = 2 * count / (count - 1) * variance
        return jnp.round(images * 255).astype(jnp.uint8), rewards, diversity

    def rewards(
        self, names: tuple, params: Params, images: Float[Array, "P n H W 3"], prompted: Prompted
    ) -> dict[str, Float[Array, "P n"]]:
        """Some rewards of images as files hold them."""
        found, flat = {}, images.reshape(-1, *images.shape[2:])
        for name in names:
            text = jax.tree.map(lambda leaf: jnp.repeat(leaf, images.shape[1], axis=0), prompted.rewards[name])
            rewards = self.pipeline.scorers[name].score(params[name], flat, text, True)
            found[name] = rewards.reshape(images.shape[:2])
        return found

    def annotate(
        self, params: Params, latents: Float[Array, "P n h w c"], prompted: Prompted
    ) -> dict[str, Float[Array, "P n"]]:
        """The rewards that guide, of lookahead samples."""
        names = tuple(self.run.config.text_to_image.rewards)
        return self.rewards(names, params, self.decode(params, latents), prompted)

    def look_ahead(
        self, rows: Int[np.ndarray, " P"], wanted: Int[np.ndarray, " p"], prompted: Prompted
    ) -> tuple[Lookahead, dict[str, list[float]]]:
        """The lookahead samples of some prompts with the mixed reward, and the seconds that each prompt took.

        They are kept in the cache, one file a prompt, under the hash of all that decides them.
        """
        files = [self.cache / f"{self.numbers[index]:05d}.npz" for index in rows]
        if not all(file.exists() for file in files):
            keys = self.keys("lookahead", rows, self.sampler.particles)
            x, drawing = self.timed("look", self.sampler.lookahead, self.pipeline.ahead, keys, prompted)
            rewards, scoring = self.timed("annotate", self.annotate, self.pipeline.rewards, x, prompted)
            worth, drawn = self.finite(rewards, wanted), np.asarray(x)
            seconds = (drawing / len(wanted), scoring / len(wanted))
            for row, index in enumerate(wanted):
                pool = Pool(drawn[row], {name: each[row] for name, each in worth.items()}, seconds)
                write_pool(files[row], self.metadata[index]["prompt"], pool)
        pools = [read_pool(file, self.metadata[index]["prompt"]) for file, index in zip(files, rows, strict=True)]
        samples = np.stack([pool.samples.reshape(len(pool.samples), -1) for pool in pools])
        rewards = np.stack([self.mixed(pool.rewards) for pool in pools])
        top = self.run.config.sample.gaussian.lookahead.top or None
        # The public code's "top" is a random subset, the same ranks for every prompt.
        ranks = np.random.default_rng(42).permutation(self.sampler.particles)[:top]
        ahead = Lookahead(jnp.asarray(samples[:, ranks]), jnp.asarray(rewards[:, ranks]))
        phases = {name: [pool.seconds[part] for pool in pools] for part, name in enumerate(("lookahead", "annotation"))}
        return self.placed(ahead), phases

    @property
    def cache(self) -> Path:
        """The folder of the lookahead samples of a config: scale, strength and stop of the guide do not decide them."""
        config = self.run.config
        fields = to_json(config)
        ahead = {
            name: value
            for name, value in fields["sample"]["gaussian"]["lookahead"].items()
            if name not in ("strength", "scale", "stop", "top")
        }
        # The weights of all networks are in the identity of the job, by the content of their files.
        files = {path: each for path, each in self.run.job.contents.items() if path != config.data.path}
        decides = {
            "lookahead": ahead,
            "guidance": config.sample.gaussian.guidance,
            "model": fields["model"],
            "text_to_image": {name: each for name, each in fields["text_to_image"].items() if name not in KEPT},
            "files": files,
            "seed": config.seed,
            "prompt": config.sample.prompt,  # the one of the command line has number 0
        }
        return cache_of(self.run.workdir) / "lookahead" / digest(decides)

    def mixed(self, rewards: dict[str, Float[np.ndarray, " n"]]) -> Float[np.ndarray, " n"]:
        """The weighted sum of the rewards of a prompt's lookahead samples; of several, their z-scores are summed."""
        options = self.run.config.text_to_image
        pairs = [(rewards[name], weight) for name, weight in zip(options.rewards, options.mix, strict=True) if weight]
        if len(pairs) == 1:
            return np.asarray(pairs[0][1] * pairs[0][0], np.float32)
        total = sum(weight * (each - each.mean()) / max(float(each.std()), 1e-12) for each, weight in pairs)
        return np.asarray(total, np.float32)

    def finite(self, rewards: dict[str, Array], wanted: Int[np.ndarray, " p"]) -> Rewards:
        """Rewards on the host; raises ValueError naming the first prompt of which one is no number."""
        found = {name: np.asarray(each)[: len(wanted)] for name, each in rewards.items()}
        for name, values in found.items():
            broken = np.argwhere(~np.isfinite(values))
            if len(broken):
                row, image = broken[0]
                raise ValueError(
                    f"text_to_image.{name}: the reward of image {image} of {self.metadata[wanted[row]]['prompt']!r} is "
                    f"{values[row, image]}; check the files of its weights, or set model.dtype=float32"
                )
        return found


# Fields of `text_to_image` that do not decide lookahead samples or their rewards.
KEPT = ("mix", "measures", "images")
