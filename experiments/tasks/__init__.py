"""Kinds of data: how samples of each are checked, drawn, measured and shown.

`task_of` alone reads the domain of a data set, and `task_of_row` that of a result.
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

from ml_collections import ConfigDict

from diffusion.data import Dataset
from experiments.families.base import System
from experiments.run_context import Run
from experiments.tasks import genomes, images, mixture, molecules, prompted_images, text, text_to_image, translation


@runtime_checkable
class Task(Protocol):
    """What a module of this package defines for its kind of data."""

    @property
    def LINES(self) -> bool:
        """Whether its samples are short texts, one per line or paragraph."""
        ...

    def check_config(self, config: ConfigDict, system: System, domain: str) -> None:
        """Raise ValueError for what a config alone says cannot be drawn or measured."""
        ...

    def check(self, run: Run) -> None:
        """Raise ValueError as `check_config`, and for what data and devices say, before anything is trained."""
        ...

    def sample(self, run: Run) -> dict:
        """Draw, write and measure samples; returns the result row's own entries."""
        ...

    def collect(self, rows: list[dict], workdir: Path, folder: Path) -> list[Path]:
        """Copy or draw the images of samples of a table's rows into its folder."""
        ...


TASKS: dict[str, Task] = {
    "text": text,
    "values": text,
    "image": images,
    "molecules": molecules,
    "genomes": genomes,
    "pairs": translation,
    "prompted": prompted_images,
    "captions": text_to_image,
    "mixture": mixture,
}


def task_of(dataset: Dataset) -> Task:
    """The task of a data set."""
    return TASKS[dataset.domain]


def task_of_row(row: dict) -> Task:
    """The task of a result; results without a domain are of text."""
    return TASKS[row.get("domain", "text")]
