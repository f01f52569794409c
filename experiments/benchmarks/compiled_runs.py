"""Compilation of recipes by `launch.py compile`, each in a process of its own, and the records that are kept of it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ml_collections import ConfigDict

from diffusion.report.rows import commit
from experiments.benchmarks.compiled_recipes import Recipe
from experiments.compile import record_path

ROOT = Path(__file__).parents[2]
CONVOLUTIONS = ("unet", "captioned_unet", "reward", "classifier")
FACTS = ("parameters", "devices", "mesh", "attention", "remat", "commit", "versions")
PROGRAM = ("program", "arguments", "outputs", "aliased", "temporaries", "weights", "flops", "flops_executed")
PROGRAM += ("peak", "bytes_estimate", "collectives", "compile_seconds")
Runner = Callable[[list[str], dict[str, str]], str]


def effort_of(config: ConfigDict, effort: str) -> str:
    """The compiler's effort for a network: convolutions compile slowly at full effort."""
    return ("-1" if config.model.net in CONVOLUTIONS else "0") if effort == "auto" else effort


def described(recipe: Recipe, topology: str, effort: str) -> dict:
    """What a record says of its recipe, compiled or not."""
    config = recipe.config
    return {
        "table": recipe.table,
        "row": recipe.row,
        "shared": list(recipe.shared),
        "topology": topology or "devices here",
        "effort": effort_of(config, effort),
        "key": recipe.key,
        "batch": config.train.batch,
        "length": config.data.length,
        "accumulate": config.train.accumulate,
        "sampled": config.sample.batch,
    }


def command(recipe: Recipe, topology: str, workdir: Path) -> list[str]:
    """The words that compile a recipe."""
    words = [f"--config=configs/{recipe.table}.py:paper", f"--row={recipe.row}", f"--workdir={workdir}"]
    return [sys.executable, "launch.py", "compile", *words, *([f"--topology={topology}"] if topology else [])]


def process(minutes: int, words: list[str], environment: dict[str, str]) -> str:
    """Run a command for at most some minutes; returns its last line of errors, or nothing if it succeeded."""
    try:
        done = subprocess.run(
            words, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60 * minutes
        )
    except subprocess.TimeoutExpired:
        return f"stopped after {minutes} minutes"
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return lines[-1].removeprefix("launch.py: ") if done.returncode else ""


def compiled(recipe: Recipe, facts: dict, topology: str, workdir: Path, run: Runner) -> dict:
    """The record of a recipe after compilation: with its programs, or with the error."""
    path = record_path(workdir, recipe.table, "paper", recipe.row, topology)
    path.unlink(missing_ok=True)
    if error := run(command(recipe, topology, workdir), {"JAX_EXEC_TIME_OPTIMIZATION_EFFORT": facts["effort"]}):
        return facts | {"error": error, "commit": commit()}
    record = json.loads(path.read_text())
    programs = [{name: each[name] for name in (*PROGRAM, "seconds") if name in each} for each in record["programs"]]
    chips = int(record["devices"].partition(" x ")[0])
    return facts | {name: record[name] for name in FACTS} | {"chips": chips, "programs": programs}


def done(record: dict, effort: str) -> bool:
    """Whether a record is a result at an effort: programs that fit, or the compiler's figure for those that do not."""
    result = bool(record.get("programs")) or record.get("error", "").startswith("memory:")
    return result and effort in ("auto", record["effort"])


def matched(listed: list[Recipe], known: list[dict], topology: str, effort: str) -> list[dict]:
    """A record for each recipe: the known one of its config and topology, or its description alone."""
    found = []
    for recipe in listed:
        facts = described(recipe, topology, effort)
        for each in known:
            if all(each[name] == facts[name] for name in ("table", "row", "topology", "key")):
                facts = each | {"shared": facts["shared"]}
        found.append(facts)
    return found


def update(
    listed: list[Recipe], known: list[dict], topology: str, effort: str, workdir: Path, run: Runner, only: list[str]
) -> Iterator[list[dict]]:
    """Compile the recipes without a result, of the tables `only` if any; yields all records after each one.

    The effort `auto` accepts a result of any effort.
    """
    records = matched(listed, known, topology, effort)
    yield records
    for place, recipe in enumerate(listed):
        if done(records[place], effort) or (only and not {recipe.table, *recipe.shared} & set(only)):
            continue
        print(f"{recipe.table}, {recipe.row} ...", flush=True)
        facts = described(recipe, topology, effort)
        records[place] = compiled(recipe, facts, topology, workdir, run)
        print(f"  {records[place].get('error') or 'fits'}", flush=True)
        yield records
