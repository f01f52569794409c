"""Kinds of data: how samples of each are checked, drawn, measured and shown.

`task_for` alone reads a domain; `task_of` takes that of a data set, and `task_of_row` that of a result. The module of a
task is imported when it is first asked for, because the measures of one kind of data need libraries that the others do
without.
"""

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from ml_collections import ConfigDict

from diffusion.data import Dataset
from experiments.families.base import System
from experiments.run_context import Run


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


TASKS = {
    "text": "text",
    "values": "text",
    "image": "images",
    "molecules": "molecules",
    "genomes": "genomes",
    "pairs": "translation",
    "prompted": "prompted_images",
    "captions": "text_to_image",
    "mixture": "mixture",
}


def task_for(domain: str) -> Task:
    """The task of a kind of data."""
    return cast(Task, import_module(f"{__name__}.{TASKS[domain]}"))


def task_of(dataset: Dataset) -> Task:
    """The task of a data set."""
    return task_for(dataset.domain)


def task_of_row(row: dict) -> Task:
    """The task of a result; results without a domain are of text."""
    return task_for(row.get("domain", "text"))
