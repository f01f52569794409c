"""What the verb `sample` does for pictures from prompts: draw them under a reward, time it, and check them."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from tqdm import tqdm

from diffusion import build
from diffusion.build.guided import Method, check_guided, method
from diffusion.build.names import pick
from diffusion.data import shapes as world
from diffusion.data.shapes_prompts import SPLITS, encode, parse, prompts
from diffusion.evaluate.geneval import TASKS, scores
from diffusion.evaluate.intervals import over_sets
from diffusion.evaluate.shapes import check as correct
from diffusion.evaluate.shapes import graded
from diffusion.randomness import example_keys, named
from diffusion.report.images import image_grid, labelled_grid
from diffusion.report.images import pictures as as_bytes
from diffusion.report.rows import provenance
from diffusion.sampling.gaussian import rows_of
from diffusion.sampling.lidar import Lookahead, kernel_logits
from diffusion.train.mesh import batch_sharding, check_batch, shards
from diffusion.train.weights import load_weights
from experiments.context import Context, trained_weights
from experiments.jobs import Job, digest, plain, read_config

ROWS = 8  # prompts in a picture of samples


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


def check(job: Context) -> None:
    """Raise ValueError for what a training need not be waited for: methods, counts, prompts, rewards."""
    options = job.config.sample
    if jax.process_count() > 1:
        raise ValueError("sample: pictures from prompts are drawn and judged by one process; run one")
    check_guided(job.config)
    slots(job)
    method(job.config, job.system, lambda *_: None)
    check_batch(options.batch, job.mesh, field="sample.batch")
    if job.config.model.net == "captioned_unet" and job.config.judge.name != "row":
        raise ValueError("judge.name: pictures of prompts are rewarded by a row of the table; set it to row")


def slots(job: Context) -> list[Slot]:
    """The prompts to draw: the one that the config gives, or `per_task` of each task from its split.

    Raises:
      ValueError: for a prompt outside the grammar or an unknown split.
    """
    options = job.config.sample
    if options.prompt:
        parse(options.prompt)
        return [Slot(options.prompt, 0)]
    pick(dict.fromkeys(SPLITS), options.gaussian.split, "sample.gaussian.split")
    wanted = options.gaussian.per_task
    chosen = []
    for task in TASKS:
        known = prompts(task, options.gaussian.split)
        # Spread over what there is, which is sorted.
        order = np.random.default_rng(0).permutation(len(known))
        chosen += [Slot(known[order[index % len(known)]], index // len(known)) for index in range(wanted)]
    return chosen


def run(job: Context, spec: Job) -> dict:
    """Sample all prompts by the config's method, and return what the pictures are worth with what they cost.

    Of several sets (`sample.repeats`), each with noise and lookahead samples of its own, the measures are means with
    95 % intervals.
    """
    begin = time.time()
    asked = slots(job)
    model = opened(job, spec, asked)
    made = method(job.config, job.system, model.reward)
    draw, measures, by_prompt = Drawing(job, spec, model, asked, made), [], []
    for number in range(job.config.sample.repeats):
        pictures, seconds = draw(number)
        metrics, found = measure(job, model, asked, pictures)
        measures.append(metrics | {name: value / len(asked) for name, value in seconds.items()})
        by_prompt.append(found)
        if number == 0 and jax.process_index() == 0:
            draw_grid(job, asked, pictures)
    images, cost = job.config.sample.gaussian.images, made.cost
    costs = {
        "evaluations": cost.evaluations / images,
        "backward_evaluations": cost.backward / images,
        "reward_evaluations": cost.rewards / images,
        "gigaflops": (cost.evaluations + 2 * cost.backward) / images * build.forward_flops(job.config, 0) / 1e9,
    }
    return {
        "metrics": over_sets(measures) | costs,
        **({"sets": measures} if len(measures) > 1 else {}),
        "by_prompt": by_prompt,
        "domain": job.dataset.domain,
        "sampler": job.config.sample.gaussian.method,
        "seconds": time.time() - begin,
        "data": job.dataset.fingerprint,
        **provenance(),
    }


def opened(job: Context, spec: Job, asked: list[Slot]) -> Model:
    """The trained model with its learned reward, or exact models of sets of pictures with the rules as reward."""
    if job.config.model.net == "picture_oracle":
        return exact_model(job, asked)
    params = trained_weights(spec, job.config, job.system, job.mesh, job.workdir)
    folder = job.workdir / "jobs" / spec.needs[-1]
    config = read_config(folder)
    judge = build.system(config, job.dataset.tokenizer.vocab_size)
    if config.model.net != "reward":
        raise ValueError(f"judge.row: {job.config.judge.row!r} is a {config.model.net}; name a row that is a reward")
    reward_params = load_weights(folder / "weights", judge.init, job.mesh)

    def reward(reward_params, clean, told):
        repeated = jnp.repeat(told, len(clean) // len(told), axis=0)
        return judge.denoiser(reward_params, clean, jnp.zeros(len(clean)), repeated)

    @jax.jit
    def rounded_reward(reward_params, pictures, told):
        clean = job.system.codec.rounded(pictures.reshape(-1, *pictures.shape[2:]))
        return reward(reward_params, clean, told).reshape(pictures.shape[:2])

    def judged(pictures, told):
        return np.asarray(rounded_reward(reward_params, pictures, told))

    told = np.stack([encode(slot.prompt) for slot in asked])
    return Model(params, reward_params, told, reward, judged)


def exact_model(job: Context, asked: list[Slot]) -> Model:
    """For every prompt a set of pictures, of which some fulfil it; rewards are the share of the prompt fulfilled.

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

    def reward(reward_params, clean, told):
        pools, worth = told[:2]
        groups = clean.reshape(len(pools), -1, pools.shape[-1])
        near = jax.vmap(kernel_logits, in_axes=(0, 0, None, None))(pools, groups, 1.0, 1.0)
        return jnp.take_along_axis(worth, jnp.argmax(near, axis=-1), axis=1).reshape(-1)

    def judged(pictures, told):
        shown = np.clip((np.asarray(pictures) + 1) / 2, 0, 1)
        pairs = zip(shown, np.asarray(told[2]), strict=True)
        return np.array([[graded(one, metadata[slot]) for one in group] for group, slot in pairs], np.float32)

    return Model({}, {}, (pools, np.array(worth, np.float32), np.arange(len(asked))), reward, judged)


@dataclass
class Drawing:
    """Sets of pictures of every slot [P, N, H, W, C], in batches of `sample.batch` prompts, and their seconds.

    Programs are compiled, and run once, before the clock starts. A picture is the same for every batch size.
    """

    job: Context
    spec: Job
    model: Model
    asked: list[Slot]
    made: Method
    programs: dict[str, Any] = field(default_factory=dict)

    def __call__(self, number: int) -> tuple[Float[np.ndarray, "P N H W C"], dict[str, float]]:
        """Set `number`, with the seconds of all phases and of looking ahead alone."""
        ahead, before = self.looked_up(number) if self.made.look is not None else (None, 0.0)
        pictures, seconds = [], 0.0
        rows = batch_sharding(self.job.mesh)

        def placed(tree, chosen):
            return jax.device_put(rows_of(tree, chosen), rows)

        for chosen, share in self.batches("sampling"):
            drawn = jax.device_put(self.keys("target", number, chosen, self.made.draws), rows)
            told, given = placed(self.model.told, chosen), placed(ahead, chosen)
            forces = {name: jnp.float32(value) for name, value in self.made.forces.items()}
            inputs = (self.model.params, self.model.reward_params, drawn, told, given, forces)
            made, spent = self.timed("draw", self.made.draw, inputs)
            pictures.append(np.asarray(made))
            seconds += spent * share
        pictures = np.concatenate(pictures)[: len(self.asked)]
        return pictures, {"seconds_per_prompt": seconds + before, "lookahead_seconds_per_prompt": before}

    def batches(self, what: str) -> Iterator[tuple[Int[np.ndarray, "P"], float]]:
        """The slots of every batch, the last one filled up, and the share of it that is wanted."""
        count = len(self.asked)
        # A few prompts are no reason to compute a whole batch.
        size = min(self.job.config.sample.batch, -(-count // shards(self.job.mesh)) * shards(self.job.mesh))
        for start in tqdm(range(0, count, size), desc=what, disable=not sys.stderr.isatty(), leave=False):
            yield np.minimum(np.arange(start, start + size), count - 1), min(size, count - start) / size

    def keys(self, purpose: str, number: int, chosen: Int[np.ndarray, "P"], draws: int) -> Array:
        """One key for each sample of each slot: equal slots of equal sets start from equal noise in every method."""
        root = jax.random.fold_in(named(self.job.root, purpose), number)
        slot_keys = example_keys(root, jnp.asarray(chosen))
        return jax.vmap(lambda key: example_keys(key, jnp.arange(draws)))(slot_keys)

    def timed(self, name: str, function: Any, inputs: tuple) -> tuple[Array, float]:
        """What a function gives, and how long it took once it was compiled and warm."""
        if name not in self.programs:
            rows = batch_sharding(self.job.mesh)
            with jax.set_mesh(self.job.mesh):
                self.programs[name] = jax.jit(function, out_shardings=rows).lower(*inputs).compile()
            jax.block_until_ready(self.programs[name](*inputs))
        clock = time.perf_counter()
        made = jax.block_until_ready(self.programs[name](*inputs))
        return made, time.perf_counter() - clock

    def looked_up(self, number: int) -> tuple[Lookahead, float]:
        """The lookahead samples of all slots with their rewards, and the seconds that they took when they were made.

        They are kept in the cache under the hash of all that decides them; scale, strength and stop do not.
        """
        config, options = self.job.config, self.job.config.sample.gaussian
        decides = {name: plain(options)["lookahead"][name] for name in ("particles", "steps", "path", "solver")}
        decides |= {"weights": [config.checkpoint, *self.spec.needs], "model": plain(config.model), "set": number}
        decides |= {"guidance": options.guidance, "prompts": self.asked, "seed": config.seed}
        decides |= {"pool": [options.pool, options.pool_correct, options.deviation]}
        file = self.job.workdir / "cache" / "lookahead" / f"{digest(decides)}.npz"
        if not file.exists():
            self.write_lookahead(number, file)
        with np.load(file) as stored:
            if list(stored["prompts"]) != [slot.prompt for slot in self.asked]:
                raise ValueError(f"sample: {file} holds lookahead samples of other prompts; delete it and run again")
            samples, rewards, seconds = stored["samples"], stored["rewards"], float(stored["seconds"])
        # The public code's "top" is a random subset, the same ranks for every prompt.
        kept = np.random.default_rng(42).permutation(self.made.particles)[: options.lookahead.top or None]
        return Lookahead(samples[:, kept].reshape(len(self.asked), len(kept), -1), rewards[:, kept]), seconds

    def write_lookahead(self, number: int, file: Path) -> None:
        """Draw and judge the lookahead samples of all slots, and write them whole or not at all."""
        samples, rewards, seconds = [], [], 0.0
        for chosen, share in self.batches("looking ahead"):
            told = jax.tree.map(jnp.asarray, rows_of(self.model.told, chosen))
            inputs = (self.model.params, self.keys("lookahead", number, chosen, self.made.particles), told)
            x, spent = self.timed("look", self.made.look, inputs)
            self.model.judge(x, told)  # compiled before the clock starts
            clock = time.perf_counter()
            rewards.append(self.model.judge(x, told))
            seconds += (spent + time.perf_counter() - clock) * share
            samples.append(np.asarray(x))
        count = len(self.asked)
        rewards = finite(np.concatenate(rewards)[:count], self.asked)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        with partial.open("wb") as stream:
            names = [slot.prompt for slot in self.asked]
            samples = np.concatenate(samples)[:count]
            np.savez(stream, samples=samples, rewards=rewards, seconds=seconds, prompts=names)
        partial.replace(file)


def finite(rewards: Float[np.ndarray, "P n"], asked: list[Slot]) -> Float[np.ndarray, "P n"]:
    """The rewards; raises ValueError naming the first prompt of which one is no number."""
    broken = np.argwhere(~np.isfinite(rewards))
    if len(broken):
        slot, sample = (int(index) for index in broken[0])
        raise ValueError(
            f"judge.row: the reward of sample {sample} of {asked[slot].prompt!r} is {rewards[slot, sample]}; train the "
            "reward anew, or name another row"
        )
    return rewards


def measure(
    job: Context, model: Model, asked: list[Slot], pictures: Float[np.ndarray, "P N H W C"]
) -> tuple[dict[str, float], list[dict]]:
    """GenEval's scores by the exact checker, the reward, and how much pictures of one prompt differ."""
    codec = job.system.codec
    saved = np.asarray(codec.rounded(jnp.asarray(pictures.reshape(-1, *pictures.shape[2:]))))
    shown = ((saved + 1) / 2).reshape(pictures.shape)
    metadata = [parse(slot.prompt) for slot in asked]
    hits = np.array([[correct(one, told) for one in group] for group, told in zip(shown, metadata, strict=True)])
    shares = np.array([[graded(one, told) for one in group] for group, told in zip(shown, metadata, strict=True)])
    rewards = finite(judged(job, model, pictures), asked)
    tags = [told["tag"] for told in metadata]
    found = scores(np.repeat(tags, hits.shape[1]).tolist(), hits.reshape(-1).tolist())
    low, high = bootstrap(asked, tags, hits)
    metrics = {"overall": found.overall, "overall_low": low, "overall_high": high} if not found.absent else {}
    metrics |= {f"task_{task}": value for task, value in found.tasks.items()}
    metrics |= {
        "correct": float(hits.mean()),
        "any_correct": float(hits.any(axis=1).mean()),
        "graded": float(shares.mean()),
        "reward": float(rewards.mean()),
        "diversity": diversity(pictures),
        "pictures": hits.size,
    }
    by_prompt = [
        {"prompt": slot.prompt, "tag": tag, "correct": float(row.mean()), "reward": float(reward.mean())}
        for slot, tag, row, reward in zip(asked, tags, hits, rewards, strict=True)
    ]
    return metrics, by_prompt


def judged(job: Context, model: Model, pictures: Float[np.ndarray, "P N H W C"]) -> Float[np.ndarray, "P N"]:
    """The reward of every finished picture."""
    return model.judge(jnp.asarray(pictures), jax.tree.map(jnp.asarray, model.told))


def bootstrap(
    asked: list[Slot], tags: list[str], hits: Bool[np.ndarray, "P N"], draws: int = 2000
) -> tuple[float, float]:
    """The 95 % interval of the overall score over prompts drawn anew within their tasks; repetitions stay together."""
    rng = np.random.default_rng(0)
    totals = np.zeros(draws)
    present = [task for task in TASKS if task in tags]
    for task in present:
        groups: dict[str, list[float]] = {}
        for slot, tag, row in zip(asked, tags, hits, strict=True):
            if tag == task:
                groups.setdefault(slot.prompt, []).append(float(row.mean()))
        means = np.array([np.mean(values) for values in groups.values()])
        chosen = rng.integers(len(means), size=(draws, len(means)))
        totals += means[chosen].mean(axis=1) / len(present)
    return tuple(float(bound) for bound in np.percentile(totals, [2.5, 97.5]))


def diversity(pictures: Float[np.ndarray, "P N H W C"]) -> float:
    """Mean squared difference of two pictures of one prompt, a value; 0 for one picture."""
    count = pictures.shape[1]
    if count < 2:
        return 0.0
    flat = pictures.reshape(*pictures.shape[:2], -1)
    # The sum over pairs is n times the squared distance from the mean.
    spread = ((flat - flat.mean(axis=1, keepdims=True)) ** 2).mean(axis=2).sum(axis=1)
    return float((2 * spread / (count - 1)).mean())


def draw_grid(job: Context, asked: list[Slot], pictures: Float[np.ndarray, "P N H W C"]) -> None:
    """samples.png, one prompt a row, samples.txt, which prompt is which row, and samples.npy, the same as bytes."""
    every = max(1, len(asked) // ROWS)
    shown = list(range(0, len(asked), every))[:ROWS]
    tokens = np.asarray(job.system.codec.decode(jnp.asarray(pictures[shown].reshape(-1, *pictures.shape[2:]))))
    shape = job.system.codec.image
    image_grid(job.folder / "samples.png", tokens, shape, pictures.shape[1])
    np.save(job.folder / "samples.npy", as_bytes(tokens, shape).reshape(len(shown), -1, *shape))
    (job.folder / "samples.txt").write_text("".join(f"{asked[index].prompt}\n" for index in shown))


def montage(rows: list[dict], workdir: Path, folder: Path, most: int = 2) -> list[Path]:
    """Pictures of the same prompts and noise, one column a row of the table; nothing where there are none."""
    columns: dict[str, np.ndarray] = {}
    texts: list[str] = []
    for row in rows:
        job = workdir / "jobs" / row["job"]
        if row.get("domain") == "prompted" and (job / "samples.npy").exists() and row["row"] not in columns:
            columns[row["row"]] = np.load(job / "samples.npy")[:, :most]
            texts = (job / "samples.txt").read_text().splitlines()
    if len(columns) < 2 or len({len(each) for each in columns.values()}) > 1:
        return []
    labelled_grid(folder / "methods.png", columns, texts, "The same prompts and noise under each method")
    return [folder / "methods.png"]
