"""The verb `geneval` as a job of a table: the scores of the images that the job `images` drew."""

import time
from pathlib import Path

import jax

from diffusion.data.geneval import read_tree
from diffusion.report.rows import provenance
from experiments.geneval.command import check_tree, label_of, load_colors
from experiments.geneval.detector import RANDOM, check_detector, load_detector
from experiments.geneval.score import score_images
from experiments.geneval.summary import summarize
from experiments.run_context import Run
from experiments.tasks.text_to_image import FOLDER


def folder_of(run: Run, name: str) -> str:
    """The folder of a network of the config: "random", or one below the folder of weights."""
    return name if name == RANDOM else str(Path(run.config.weights).expanduser() / name)


def check(run: Run) -> None:
    """Raise ValueError for a detector or a CLIP that is not there, or without PyTorch, before anything is drawn."""
    for field in ("detector", "clip"):
        name = run.config.geneval[field]
        if name != RANDOM and not Path(folder_of(run, name)).is_dir():
            raise ValueError(
                f"geneval.{field}: {name!r} is not in the folder of weights, {run.config.weights!r}; download it "
                "there, or pass --config.geneval.detector=none for a table without GenEval's scores"
            )
    check_detector()


def execute(run: Run) -> dict:
    """Score all images, and return the row; verdicts stay beside the images in results.jsonl."""
    begin, root = time.time(), run.workdir / "jobs" / run.job.needs["images"] / FOLDER
    if jax.process_index():
        return {}
    tree = read_tree(root)
    clip, folder = (folder_of(run, run.config.geneval[field]) for field in ("clip", "detector"))
    check_tree(root, tree, clip)
    detector, label = load_detector(folder)._replace(label=label_of(folder)), label_of(clip)
    summary = summarize(score_images(root, tree, detector, load_colors(clip), label))
    overall = summary.intervals["overall"]
    metrics = {f"task_{task}": value for task, value in summary.scores.tasks.items()}
    if not summary.scores.absent:
        metrics |= {"overall": summary.scores.overall, "overall_low": overall.low, "overall_high": overall.high}
    metrics |= {"correct_images": summary.images, "correct_prompts": summary.prompts}
    note = f"GenEval's objects are found by {detector.label}, their colors by {label}"
    return {
        "metrics": metrics,
        "seconds": time.time() - begin,
        "data": run.dataset.fingerprint,
        "signature": note,
        **provenance(),
    }
