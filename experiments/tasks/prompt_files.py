"""Files of one prompt: its lookahead samples with their rewards, and its images with their scores.

A prompt is done when its scores are there, which are written last; an interrupted run loses the prompt that it was at.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float, UInt8

from diffusion.data.geneval import image_folder, read_image, sample_file, write_image, write_metadata
from diffusion.storage import atomic_write, written

SCORES = "scores.json"


class Pool(NamedTuple):
    """Lookahead samples of a prompt, their rewards by name, and the seconds that drawing and scoring them took."""

    samples: Float[np.ndarray, "n H W C"]
    rewards: dict[str, Float[np.ndarray, " n"]]
    seconds: tuple[float, float]


def write_pool(file: Path, prompt: str, pool: Pool) -> None:
    """Write the lookahead samples of a prompt, whole or not at all."""
    arrays: dict[str, Any] = {f"reward_{name}": each for name, each in pool.rewards.items()}
    arrays |= {"samples": pool.samples, "seconds": np.array(pool.seconds), "prompt": prompt}
    with written(file) as partial:
        np.savez(partial, **arrays)


def read_pool(file: Path, prompt: str) -> Pool:
    """The lookahead samples of a prompt; raises ValueError for a damaged file, or one of another prompt."""
    try:
        with file.open("rb") as stream, np.load(stream) as stored:
            found = str(stored["prompt"])
            rewards = {name[7:]: stored[name] for name in stored.files if name.startswith("reward_")}
            pool = Pool(stored["samples"], rewards, tuple(stored["seconds"].tolist()))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ValueError(f"sample: {file} is damaged ({error}); delete it and run again") from None
    if found != prompt:
        raise ValueError(f"sample: {file} holds lookahead samples of {found!r}, not {prompt!r}; delete it")
    return pool


def write_prompt(
    root: Path, number: int, metadata: dict[str, Any], images: UInt8[np.ndarray, "N H W 3"], scores: dict
) -> None:
    """Write the images of a prompt as GenEval's tree, and at last their scores."""
    folder = image_folder(root, number)
    write_metadata(folder, metadata)
    for index, image in enumerate(images):
        write_image(sample_file(folder, index), image)
    atomic_write(folder / SCORES, json.dumps({"prompt": metadata["prompt"], **scores}) + "\n")


def is_written(root: Path, number: int) -> bool:
    """Whether all files of a prompt are there."""
    return (image_folder(root, number) / SCORES).exists()


def read_scores(root: Path, number: int, prompt: str) -> dict:
    """The scores of a prompt; raises ValueError for a damaged file, or one of another prompt."""
    file = image_folder(root, number) / SCORES
    try:
        scores = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"sample: {file} cannot be read ({error}); delete it and run again") from None
    if scores.get("prompt") != prompt:
        raise ValueError(f"sample: {file} is of {scores.get('prompt')!r}, not {prompt!r}; delete its folder")
    return scores


def read_images(root: Path, number: int) -> UInt8[np.ndarray, "N H W 3"]:
    """The images of a prompt."""
    folder = image_folder(root, number)
    return np.stack([read_image(file) for file in sorted((folder / "samples").glob("*.png"))])
