"""What the verb `sample` does for images from prompts: draw them under a reward, time it, and check them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from diffusion.glyphs.checker import check as correct
from diffusion.glyphs.checker import prompt_reward
from diffusion.glyphs.prompts import parse, prompts
from diffusion.metrics.geneval import TASKS, scores
from diffusion.metrics.prompted_images import bootstrap_over_prompts, diversity
from diffusion.metrics.statistics import mean_over_sets
from diffusion.report.images import as_bytes, image_grid, labeled_grid
from diffusion.storage import atomic_write, written
from diffusion.train.mesh import check_batch
from experiments import families
from experiments.families.base import System
from experiments.families.guidance import guided_sampler
from experiments.flops import sampling_flops
from experiments.layout import job_folder
from experiments.run_context import Run
from experiments.tasks.prompted_models import Model, Slot, nearest_worth, opened
from experiments.tasks.prompted_sampling import Drawing, finite

LINES = False
ROWS = 8  # prompts in an image of samples
MONTAGE = "methods.png"


def check_config(config: ConfigDict, system: System, domain: str) -> None:
    """Raise ValueError for unsuitable methods, counts, prompts and rewards."""
    guided_sampler(config, system, nearest_worth)
    prompt_slots(config)
    if families.family_of(config).REWARDED and config.judge.name != "row":
        raise ValueError("judge.name: images of prompts are rewarded by a row of the table; set it to row")


def check(run: Run) -> None:
    """Raise ValueError as `check_config`, and for several processes or a batch that devices do not divide."""
    if jax.process_count() > 1:
        raise ValueError("sample: images from prompts are drawn and judged by one process; run one")
    check_config(run.config, run.system, run.dataset.domain)
    check_batch(run.config.sample.batch, run.mesh, field="sample.batch")


def prompt_slots(config: ConfigDict) -> list[Slot]:
    """The prompts to draw: the one that the config gives, or `per_task` of each task from its split.

    Raises:
      ValueError: for a prompt outside the grammar or an unknown split.
    """
    options = config.sample
    if options.prompt:
        parse(options.prompt)
        return [Slot(options.prompt, 0)]
    wanted = options.gaussian.per_task
    slots = []
    for task in TASKS:
        known = prompts(task, options.gaussian.split)
        # Spread over what there is, which is sorted.
        order = np.random.default_rng(0).permutation(len(known))
        slots += [Slot(known[order[index % len(known)]], index // len(known)) for index in range(wanted)]
    return slots


def sample(run: Run) -> dict:
    """Sample all prompts by the config's method, and return what the images are worth with what they cost.

    Of several sets (`sample.repeats`), each with noise and lookahead samples of its own, the measures are means with
    95 % intervals.
    """
    slots = prompt_slots(run.config)
    model = opened(run, slots)
    sampler = guided_sampler(run.config, run.system, model.reward)
    draw, measures, by_prompt = Drawing(run, model, slots, sampler), [], []
    for number in range(run.config.sample.repeats):
        images, seconds = draw(number)
        metrics, found = measure(run, model, slots, images)
        measures.append(metrics | {name: value / len(slots) for name, value in seconds.items()})
        by_prompt.append(found)
        if number == 0 and jax.process_index() == 0:
            draw_grid(run, slots, images)
    count, cost = run.config.sample.gaussian.images, sampler.cost
    work = sum(sampling_flops(run.config, run.dataset.tokenizer.vocab_size, model.scorer))
    costs = {
        "evaluations": cost.evaluations / count,
        "backward_evaluations": cost.backward / count,
        "reward_evaluations": cost.rewards / count,
        "gigaflops": work / run.config.sample.batch / count / 1e9,
    }
    return {
        "metrics": mean_over_sets(measures) | costs,
        **({"sets": measures} if len(measures) > 1 else {}),
        "by_prompt": by_prompt,
        "sampler": run.config.sample.gaussian.method,
    }


def measure(
    run: Run, model: Model, slots: list[Slot], images: Float[np.ndarray, "P N H W C"]
) -> tuple[dict[str, float], list[dict]]:
    """GenEval's scores by the exact checker, the reward, and how much images of one prompt differ."""
    saved = np.asarray(run.system.pixels.rounded(jnp.asarray(images.reshape(-1, *images.shape[2:]))))
    shown = ((saved + 1) / 2).reshape(images.shape)
    metadata = [parse(slot.prompt) for slot in slots]
    hits = np.array([[correct(one, entry) for one in group] for group, entry in zip(shown, metadata, strict=True)])
    shares = np.array(
        [[prompt_reward(one, entry) for one in group] for group, entry in zip(shown, metadata, strict=True)]
    )
    rewards = finite(judged(run, model, images), slots)
    tags = [entry["tag"] for entry in metadata]
    found = scores(np.repeat(tags, hits.shape[1]).tolist(), hits.reshape(-1).tolist())
    interval = bootstrap_over_prompts(
        (tag, slot.prompt, row.mean()) for slot, tag, row in zip(slots, tags, hits, strict=True)
    )
    overall = {"overall": found.overall, "overall_low": interval.low, "overall_high": interval.high}
    metrics = overall if not found.absent else {}
    metrics |= {f"task_{task}": value for task, value in found.tasks.items()}
    metrics |= {
        "correct": float(hits.mean()),
        "any_correct": float(hits.any(axis=1).mean()),
        "graded": float(shares.mean()),
        "reward": float(rewards.mean()),
        "diversity": diversity(images),
        "pictures": hits.size,  # number of images; the key is that of committed rows
    }
    by_prompt = [
        {"prompt": slot.prompt, "tag": tag, "correct": float(row.mean()), "reward": float(reward.mean())}
        for slot, tag, row, reward in zip(slots, tags, hits, rewards, strict=True)
    ]
    return metrics, by_prompt


def judged(run: Run, model: Model, images: Float[np.ndarray, "P N H W C"]) -> Float[np.ndarray, "P N"]:
    """The reward of every finished image."""
    return model.judge(jnp.asarray(images), jax.tree.map(jnp.asarray, model.conditioning))


def shown_slots(slots: list[Slot]) -> list[int]:
    """Which slots are rows of samples.png."""
    return list(range(0, len(slots), max(1, len(slots) // ROWS)))[:ROWS]


def draw_grid(run: Run, slots: list[Slot], images: Float[np.ndarray, "P N H W C"]) -> None:
    """samples.png, one prompt per row, samples.txt, which prompt is which row, and samples.npy, the same as bytes."""
    shown = shown_slots(slots)
    codec = run.system.pixels
    tokens = np.asarray(codec.decode(jnp.asarray(images[shown].reshape(-1, *images.shape[2:]))))
    shape = codec.image
    assert shape is not None
    image_grid(run.folder / "samples.png", tokens, shape, images.shape[1])
    with written(run.folder / "samples.npy") as file:
        np.save(file, as_bytes(tokens, shape).reshape(len(shown), -1, *shape))
    atomic_write(run.folder / "samples.txt", "".join(f"{slots[index].prompt}\n" for index in shown))


def collect(rows: list[dict], workdir: Path, folder: Path, most: int = 2) -> list[Path]:
    """Images of the same prompts and noise, one column per row of the table; nothing where there are none."""
    columns: dict[str, np.ndarray] = {}
    texts: list[str] = []
    for row in rows:
        job = job_folder(row, workdir)
        if (job / "samples.npy").exists() and row["row"] not in columns:
            with (job / "samples.npy").open("rb") as stream:
                columns[row["row"]] = np.load(stream)[:, :most]
            texts = (job / "samples.txt").read_text().splitlines()
    if len(columns) < 2 or len({len(each) for each in columns.values()}) > 1:
        return []
    labeled_grid(folder / MONTAGE, columns, texts, "The same prompts and noise under each method")
    return [folder / MONTAGE]
