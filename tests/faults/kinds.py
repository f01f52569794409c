"""Faults, each of which is drawn from its own seed: what is done to a work directory, or to a command while it runs."""

import builtins
import errno
import io
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

DAMAGE = ("truncate", "delete", "zero", "flip")
# What is damaged, and the state of the work directory before: see `tests.faults.workdirs.STATES`.
TARGETS = {
    "checkpoint": ("training", "jobs/train-*/checkpoints/**/*"),
    "record": ("training", "jobs/*/*.json*"),
    "weights": ("trained", "jobs/train-*/weights/**/*"),
    "tokenizer": ("trained", "jobs/train-*/**/trained_with.json"),
    "packed": ("trained", "cache/packed/**/*"),
    "programs": ("trained", "cache/compiled/*"),
    "result": ("done", "jobs/*/*.json*"),
    "table": ("done", "tables/**/*"),
}
KILLS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM}


@dataclass(frozen=True)
class Fault:
    """One fault: its kind, such as "kill" or "flip a checkpoint", and the seed of its time, place or size."""

    kind: str
    seed: int

    def __str__(self) -> str:
        return f"{self.kind}, {self.seed}"

    @property
    def random(self) -> random.Random:
        """The source of this fault's choices."""
        return random.Random(str(self))


def faults(each: dict[str, int]) -> Iterator[Fault]:
    """As many faults of every kind as the dict says; "damage" stands for all kinds of damage to all targets."""
    for kind, number in each.items():
        kinds = [f"{how} {target}" for target in TARGETS for how in DAMAGE] if kind == "damage" else [kind]
        yield from (Fault(one, seed) for one in kinds for seed in range(number))


def damaged(fault: Fault, workdir: Path) -> Path:
    """Damage a file of the work directory as the fault says, and return its path."""
    how, target = fault.kind.split()
    draw = fault.random
    files = sorted(path for path in workdir.glob(TARGETS[target][1]) if path.is_file() and path.stat().st_size)
    # Large files have more to damage, and small ones say what the large ones are.
    file = draw.choices(files, [path.stat().st_size ** 0.25 for path in files])[0]
    data = bytearray(file.read_bytes())
    place = draw.randrange(len(data))
    if how == "truncate":
        del data[place:]
    elif how == "zero":
        data[place:] = bytes(len(data) - place)
    elif how == "flip":
        data[place] ^= 1 << draw.randrange(8)
    if how == "delete":
        file.unlink()
    else:
        file.write_bytes(data)
    return file


def unreadable(below: Path, after: int) -> None:
    """Let one read of a file below a folder fail in this process, after so many others."""
    opened, count = io.open, iter(range(after + 1))

    def failing(file: Any, mode: str = "r", *given: Any, **options: Any) -> Any:
        place = os.fspath(file) if isinstance(file, (str, os.PathLike)) else ""
        if "r" in mode and str(place).startswith(str(below)) and next(count, None) == after:
            raise OSError(errno.EIO, "Input/output error", place)
        return opened(file, mode, *given, **options)

    builtins.open = io.open = failing


def without_numbers(step: int) -> None:
    """Let a batch of the training have weights that are no numbers, after `step` others."""
    from diffusion.train import population

    put, count = population.put_batch, iter(range(step + 1))

    def spoiled(rows: dict, mesh: Any) -> dict:
        spoil = next(count, None) == step
        return put(rows | ({"weights": rows["weights"] * float("nan")} if spoil else {}), mesh)

    population.put_batch = spoiled


def injected(fault: Fault, workdir: Path) -> Callable[[], None] | None:
    """What a command does to itself before it starts."""
    draw = fault.random
    if fault.kind == "read":
        return partial(unreadable, workdir, draw.randrange(60))
    if fault.kind == "nan":
        return partial(without_numbers, draw.randrange(24))
    return None


def mounted(folder: Path, size: int) -> bool:
    """Make a folder a disk of `size` bytes, or give it another size; returns whether this machine allows it."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size},mode=0755" + (",remount" if folder.is_mount() else "")
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        return not subprocess.run(command, capture_output=True).returncode
    except FileNotFoundError:
        return False


def unmounted(folder: Path) -> None:
    """Give a folder back that was a disk of its own."""
    subprocess.run(["umount", str(folder)], check=True)
