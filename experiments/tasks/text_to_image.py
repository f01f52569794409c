"""What the verb `sample` does for images from text: draw them under a reward, prompt by prompt, and score them."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float
from ml_collections import ConfigDict

from diffusion.data import captions
from diffusion.data.settings import read_settings
from diffusion.metrics.statistics import mean_and_error
from diffusion.report.images import tiled
from diffusion.storage import atomic_write, written
from experiments.families import image_rewards, text_to_image
from experiments.families.base import System
from experiments.families.guidance import GuidedSampler, guided_sampler
from experiments.run_context import Run
from experiments.tasks import prompted_images
from experiments.tasks.pipelines import check_weights, opened
from experiments.tasks.prompt_drawing import Drawing
from experiments.tasks.prompt_files import is_written, read_images, read_scores

LINES = False
FOLDER = "images"  # of a job: GenEval's tree
ROWS, SHOWN_SIDE, GAP = 8, 128, 2  # prompts in an image of samples, and pixels of each image in it
collect = prompted_images.collect


def check_config(config: ConfigDict, system: System, domain: str) -> None:
    """Raise ValueError for unsuitable methods, rewards, or weights that are missing."""
    options = config.text_to_image
    guided_sampler(config, system, text_to_image.latent_reward(config))
    image_rewards.scorers(config, image_rewards.names(config))
    unguided = config.sample.gaussian.method == "plain" and not options.rewards
    if len(options.rewards) != len(options.mix) or not (any(options.mix) or unguided):
        raise ValueError(
            f"text_to_image.mix: {len(options.mix)} weights for {len(options.rewards)} rewards; give one for each, not "
            "all of them zero"
        )
    check_weights(config)


def check(run: Run) -> None:
    """Raise ValueError as `check_config`, and for a batch that the devices of this process do not divide."""
    check_config(run.config, run.system, run.dataset.domain)
    devices = jax.local_device_count()
    if run.config.sample.batch % devices:
        raise ValueError(f"sample.batch: {run.config.sample.batch} prompts are no multiple of {devices} local devices")
    chosen_prompts(run.config)


def chosen_prompts(config: ConfigDict) -> dict[int, dict[str, Any]]:
    """The metadata of the prompts to draw by their numbers, spread evenly over all where not all are wanted.

    Raises:
      ValueError: for a file of prompts that cannot be read.
    """
    if config.sample.prompt:
        return {0: {"tag": "", "prompt": config.sample.prompt}}
    known = captions.prompts(read_settings(config.data))
    wanted = config.sample.gaussian.prompts or len(known)
    numbers = np.unique(np.linspace(0, len(known), min(wanted, len(known)), endpoint=False).astype(int))
    return {int(number): known[number] for number in numbers}


def sample(run: Run) -> dict:
    """Draw and score the images of all prompts that are not there yet, and return their mean scores and costs.

    Each process draws the prompts of its turn on its own devices, and reads those of the others from the shared work
    directory.
    """
    prompts, root = chosen_prompts(run.config), run.folder / FOLDER
    sampler = guided_sampler(run.config, run.system, text_to_image.latent_reward(run.config))
    mine = list(prompts)[jax.process_index() :: jax.process_count()]
    left = [number for number in mine if not is_written(root, number)]
    if left:
        texts = [prompts[number]["prompt"] for number in left]
        Drawing(run, opened(run, texts), left, [prompts[number] for number in left], sampler, root).draw_all()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(run.job.id)
    for number in prompts:
        if not is_written(root, number):
            raise ValueError(
                f"sample: {root} has no images of prompt {number}; give all processes one shared work directory"
            )
    scores = {number: read_scores(root, number, each["prompt"]) for number, each in prompts.items()}
    if jax.process_index() == 0:
        show(run, root, prompts)
    return summary(run, sampler, prompts, scores)


def summary(run: Run, sampler: GuidedSampler, prompts: dict[int, dict], scores: dict[int, dict]) -> dict:
    """Mean scores over images with the standard error over prompts, and the costs of an image and of a prompt."""
    options, count = run.config.text_to_image, run.config.sample.gaussian.images
    rewards = {
        name: np.array([each["rewards"][name] for each in scores.values()]) for name in image_rewards.names(run.config)
    }
    metrics: dict[str, Any] = {}
    for name, values in rewards.items():
        key = "clip_score" if name == "clip" else name
        metrics[key], metrics[f"{key}_error"] = mean_and_error(values.mean(axis=1).tolist())
    seconds = [each["seconds"] for each in scores.values()]
    phases = {name: float(np.mean([each[name] for each in seconds])) for name in seconds[0]}
    metrics |= {f"{name}_seconds_per_prompt": value for name, value in phases.items()}
    spread = [each["diversity"] for each in scores.values() if "diversity" in each]
    metrics |= {"clip_diversity": float(np.mean(spread))} if spread else {}
    memory = [each["memory"] for each in scores.values() if each.get("memory")]
    metrics |= {"memory_gib": max(memory) / 2**30} if memory else {}
    cost = sampler.cost
    metrics |= {
        "seconds_per_prompt": sum(phases.values()),
        "prompts": len(prompts),
        "evaluations": cost.evaluations / count,
        "backward_evaluations": cost.backward / count,
        "reward_evaluations": cost.rewards / count,
    }
    by_prompt = [
        {"number": number, "tag": prompts[number]["tag"]}
        | {name: float(values[row].mean()) for name, values in rewards.items()}
        for row, number in enumerate(prompts)
    ]
    weights = {"signature": "Networks have random weights: images and scores mean nothing"} if options.random else {}
    return {"metrics": metrics, "by_prompt": by_prompt, "sampler": run.config.sample.gaussian.method, **weights}


def show(run: Run, root: Path, prompts: dict[int, dict]) -> None:
    """samples.png, one prompt per row, samples.txt, which prompt is which row, and samples.npy, the same as bytes."""
    from PIL import Image

    numbers = list(prompts)[:: max(1, len(prompts) // ROWS)][:ROWS]
    groups = np.stack([read_images(root, number) for number in numbers])
    factor = max(1, groups.shape[2] // SHOWN_SIDE)
    small = np.stack([reduced(group, factor) for group in groups])
    with written(run.folder / "samples.npy") as file:
        np.save(file, small)
    canvas = tiled(small.reshape(-1, *small.shape[2:]), small.shape[1], GAP)
    with written(run.folder / "samples.png") as file:
        Image.fromarray(canvas).save(file)
    atomic_write(run.folder / "samples.txt", "".join(f"{prompts[number]['prompt']}\n" for number in numbers))


def reduced(images: np.ndarray, factor: int) -> Any:
    """Images with the means of squares of `factor` pixels a side, as bytes."""
    count, height, width, colors = images.shape
    squares: Float[np.ndarray, "..."] = images.reshape(count, height // factor, factor, width // factor, factor, colors)
    return np.round(squares.mean(axis=(2, 4))).astype(np.uint8)
