"""A converted folder: the weights of each part, other files, and config.json with sizes and sums of the sources."""

import hashlib
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tabulate import tabulate

from diffusion.convert.files import weights_of_folder
from diffusion.data import stored_tokenizers
from diffusion.storage import atomic_write, remove, replace_folder, scratch
from diffusion.train.weights import save_weights
from diffusion.types import Params


class Conversion(NamedTuple):
    """What is to be written: parameters by part, copies of files and arrays by their place, and what config.json says.

    Parts are read one after the other, so that one is in memory at a time. `sources` are the files to sum, by name.
    `uses(folder)` are commands that use the folder, and remarks. `tokenizer` is the record of the ids that it reads.
    """

    parts: dict[str, Callable[[], Params]]
    copies: dict[str, Path]
    sources: dict[str, Path]
    description: dict[str, Any]
    uses: Callable[[Path], list[str]]
    arrays: dict[str, np.ndarray] = {}  # noqa: RUF012, a NamedTuple
    tokenizer: str = ""


def check_target(out: Path) -> None:
    """Raise ValueError unless a folder can be written: it is new, empty, or an earlier conversion."""
    if not out.name:
        raise ValueError(f"--workdir: '{out}' has no name; pass a new folder")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        if "layout" in json.loads((out / "config.json").read_text()):
            return
    except (OSError, ValueError, TypeError, RecursionError):
        pass
    raise ValueError(f"--workdir: '{out}' holds other files, which would be lost; pass a new folder")


def files_of(path: Path, name: str) -> dict[str, Path]:
    """The files of the weights of a file or folder, by `name` and their own; with an index also those that it names."""
    file = weights_of_folder(path) if path.is_dir() else path
    parts = json.loads(file.read_text())["weight_map"].values() if file.suffix == ".json" else ()
    return {f"{name}/{each}": file.parent / each for each in (file.name, *sorted(set(parts)))}


def sha256(file: Path) -> str:
    """The SHA-256 sum of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write(found: Conversion, layout: str, out: Path) -> str:
    """Write a folder, complete or not at all, in place of an earlier one; return what is in it and how it is used."""
    place, lines, counts = scratch(out), [], {}
    partial = place.with_name(f"{out.name}.partial")
    remove(partial)
    try:
        for name, load in found.parts.items():
            params = load()
            leaves = jax.tree.leaves(params)
            counts[name] = sum(leaf.size for leaf in leaves)
            types, size = sorted({str(leaf.dtype) for leaf in leaves}), sum(leaf.nbytes for leaf in leaves)
            lines.append((name, f"{counts[name]:,} parameters", " ".join(types), f"{size / 2**30:.2f} GiB"))
            save_weights(partial / name, params)
            del params, leaves
        for place, file in found.copies.items():
            (partial / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, partial / place)
        for place, array in found.arrays.items():
            np.save(partial / place, array)
        if found.tokenizer:
            atomic_write(partial / "weights" / stored_tokenizers.FILE, found.tokenizer)
        sums = {name: sha256(file) for name, file in found.sources.items()}
        description = {"layout": layout, "parts": counts} | found.description | {"sha256": sums}
        atomic_write(partial / "config.json", json.dumps(description, indent=1) + "\n")
        replace_folder(partial, out)
    finally:
        remove(partial)
    table = tabulate(lines, tablefmt="plain", disable_numparse=True)
    return "\n  ".join([f"{table}\n\nwrote {out}; use it by", *found.uses(out)])


def draws(row: str, fields: dict[str, str], beside: tuple[str, ...], out: Path) -> list[str]:
    """The command that draws images of one prompt with a folder, NAME in `fields`, and with those `beside` it."""
    changed = {
        "weights": str(out.parent),
        "data.source": "geneval_examples",
        "text_to_image.measures": "()",
        **{field: value.replace("NAME", out.name) for field, value in fields.items()},
        "sample.prompt": "a photo of a bench",
    }
    words = ["sample", "--config=configs/lidar_geneval.py:paper", f"--row={row}"]
    words += [f"--config.{field}={value}" for field, value in changed.items()]
    missing = [name for name in beside if not (out.parent / name).exists()]
    first = [f"(after you put {' and '.join(missing)} into {out.parent})"] if missing else []
    return [*first, f"python launch.py {shlex.join(words)}"]
