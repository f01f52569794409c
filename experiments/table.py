"""The verb `table`: rows to a Markdown table, plots and samples, in the work directory or beside the code."""

import json
import math
import os
import statistics
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from ml_collections import ConfigDict

from diffusion.report import plots
from diffusion.report.rows import read_rows, write_rows
from diffusion.report.tables import Column, assemble, markdown, mean_and_error, terminal, values
from experiments.domains import SCIENCES
from experiments.images import collect
from experiments.jobs import atomic_write, plan
from experiments.prompted import montage

PUBLISHED = Path(__file__).parent
IN_LINES = (*SCIENCES, "pairs")  # whose samples are shown by the line


def regenerate(module: ModuleType, config: ConfigDict, workdir: Path, committed: bool, publish: bool) -> None:
    """Write a table from rows that are there: those of the work directory, or the committed ones.

    Raises:
      ValueError: when there are none.
    """
    if committed:
        source = PUBLISHED / "results" / f"{config.table}.{config.variant}.jsonl"
        rows = read_rows(source)
    else:
        source = workdir / "jobs"
        done = [job for job in plan(list(module.rows(config)), config) if job.done(workdir)]
        rows = [read_rows_of(job.folder(workdir)) | {"row": job.row} for job in done]
    if not rows:
        raise ValueError(f"table: no rows in {source}; make them with `launch.py run --config=...`")
    write(module, config, rows, workdir, publish)


def read_rows_of(folder: Path) -> dict:
    """The result of one job."""
    return json.loads((folder / "result.json").read_text())


def write(module: ModuleType, config: ConfigDict, rows: list[dict], workdir: Path, publish: bool) -> None:
    """Table, plots and samples into the work directory's tables, and beside the code when published."""
    folder = workdir / "tables" / f"{config.table}.{config.variant}"
    text, printed = render(module, config, rows)
    pictured = {row["name"] for row in module.rows(config) if row.get("pictured", True)}
    pictures = draw(module, config, rows, folder)
    shown = [row for row in rows if row["row"] in pictured]
    pictures += montage(shown, workdir, folder)
    pictures += collect([row for row in shown if row.get("domain") != "prompted"], workdir, folder)
    samples = sample_text(rows, workdir)
    body = text + "".join(f"\n![{path.stem}]({path.name})\n" for path in pictures)
    atomic_write(folder / "table.md", body)
    write_rows(folder / "rows.jsonl", rows)
    if samples:
        atomic_write(folder / "samples.md", samples)
    print(f"\n{printed}\n")
    for path in (folder / "table.md", *pictures, *([folder / "samples.md"] if samples else []), folder / "rows.jsonl"):
        print(f"wrote {os.path.relpath(path)}")
    if publish:
        name = f"{config.table}.{config.variant}"
        write_rows(PUBLISHED / "results" / f"{name}.jsonl", rows)
        for path in pictures:
            target = PUBLISHED / "tables" / f"{name}.{path.name}"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
        links = "".join(f"\n![{path.stem}]({name}.{path.name})\n" for path in pictures)
        atomic_write(PUBLISHED / "tables" / f"{name}.md", text + links)
        print(f"published experiments/tables/{name}.md")


def render(module: ModuleType, config: ConfigDict, rows: list[dict]) -> tuple[str, str]:
    """The table in Markdown, with how it was made, and for the terminal."""
    table = module.TABLE
    columns = [Column(*column) for column in table["columns"]]
    names = [row["name"] for row in module.rows(config) if row.get("shown", True)]
    comparable = config.variant in table.get("comparable", (config.variant,))
    figures = table.get("figures", ())
    # Where a variant is not compared with the paper, what nobody measured there would be a page of empty cells.
    measured = [column for column in columns if comparable or any(values(rows, name, column.key) for name in names)]
    absent = [column.title for column in columns if column not in measured]
    headings, body = assemble(names, measured, rows, table["published"], comparable, table.get("tolerance"), figures)
    seeds = sorted({row["seed"] for row in rows})
    command = f"python launch.py run --config=configs/{config.table}.py:{config.variant}"
    command += "" if seeds == [0] else f' --config.seeds="{tuple(seeds)}"'
    first = rows[0]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    made = (
        f"Made by `{command}` at commit {', '.join(sorted({row['commit'] for row in rows}))} on "
        f"{first['device_count']} x {first['device_kind']} ({versions}); {len(seeds)} seed(s), ± is the standard error "
        f"over seeds{brackets(rows)}."
    )
    made += f" Not measured here: {', '.join(absent)}." if absent else ""
    made += "".join(f" {text}." for text in sorted({row["signature"] for row in rows if "signature" in row}))
    text = f"# {table['title']} ({config.variant})\n\n{markdown(headings, body)}\n\n{table['notes']}\n\n{made}\n"
    return text, f"{table['title']} ({config.variant})\n\n{terminal(headings, body)}"


def brackets(rows: list[dict]) -> str:
    """What stands in the brackets of cells, where models were sampled several times."""
    counts = sorted({len(row["sets"]) for row in rows if "sets" in row})
    if not counts:
        return ""
    sets = " or ".join(map(str, counts))
    return f"; in brackets, half the 95 % interval (Student's) over {sets} sets of samples of one model"


class Losses(NamedTuple):
    """A plot of losses that have one unit."""

    title: str
    unit: str
    log_y: bool = False


LINES_AND_DOTS = "training (line) and validation (dots)"
# By file. Losses of text are printed in bits a byte, or a token.
LOSSES = {
    "loss": Losses(LINES_AND_DOTS.capitalize(), "objective, bits per {density}"),
    # Nats of a yes or no, that are no text's.
    "predictors": Losses(f"Error predictors: {LINES_AND_DOTS}", "loss (nats)"),
    "regression": Losses(LINES_AND_DOTS.capitalize(), "mean squared error", log_y=True),
    "embedding": Losses(
        f"Embedding diffusion: {LINES_AND_DOTS}", "objective: squared error + cross-entropies (nats a token)"
    ),
}
# The file of each objective's losses, "loss" where it is not named; those of classifiers are not shown.
PLOTTED = {
    "errors": "predictors",
    "denoising": "regression",
    "reward": "regression",
    "embedding": "embedding",
    "classification": None,
}


def losses(rows: list[dict], folder: Path) -> list[Path]:
    """Loss curves of the trainings, a plot a unit."""
    trainings = [row for row in rows if row["verb"] == "train"]
    density = "byte" if all(row["metrics"].get("bytes_per_token") for row in trainings) else "token"
    paths = []
    for name, plot in LOSSES.items():
        runs: dict[str, list] = {}
        for row in trainings:
            if row.get("history") and PLOTTED.get(row["config"]["objective"]["name"], "loss") == name:
                history = bits_per_byte(row) if name == "loss" else row["history"]
                runs.setdefault(row["row"], []).append(history)
        if runs:
            paths.append(folder / f"{name}.png")
            plots.loss_curves(paths[-1], plot.title, runs, plot.unit.format(density=density), plot.log_y)
    return paths


def draw(module: ModuleType, config: ConfigDict, rows: list[dict], folder: Path) -> list[Path]:
    """Loss curves of the trainings, and each plot that the table asks for."""
    paths = losses(rows, folder)
    asked = list(module.rows(config))
    for plot in module.TABLE.get("plots", ()):
        curves, references = series(rows, plot) if "series" in plot else trade_off(asked, rows, plot)
        if curves:
            paths.append(folder / f"{plot['name']}.png")
            plots.lines(
                paths[-1],
                plot["title"],
                curves,
                plot["xlabel"],
                plot["ylabel"],
                log_x=plot.get("log_x", True),
                log_y=plot.get("log_y", False),
                references=references,
            )
    return paths


def trade_off(asked: list[dict], rows: list[dict], plot: dict) -> tuple[dict, dict]:
    """Two metrics against each other: rows of one `curve` make a line, rows without one a horizontal reference.

    A row that belongs to some plots alone names its line in each of them: `curves`, by the plot's name; with None for
    its line it is a level there, whether it has the other metric or not.
    """
    curves: dict[plots.Label, list] = {}
    references = {}
    for row in asked:
        y = values(rows, row["name"], plot["y"])
        x = values(rows, row["name"], plot["x"])
        named = row.get("curves", {plot["name"]: row.get("curve")})
        label = named.get(plot["name"])
        level = label is None and "curves" in row
        if plot["name"] not in named or not y or not (x or level):
            continue
        if label:
            curves.setdefault(label, []).append((statistics.fmean(x), *mean_and_error(y)))
        else:
            references[row["name"]] = statistics.fmean(y)
    return curves, references


def series(rows: list[dict], plot: dict) -> tuple[dict, dict]:
    """Named rows at named places: `series` are (label, metric, ((row, x), ...)), `references` (label, metric, row).

    `levels` are horizontal lines too, of known height by label.
    """
    curves = {}
    for label, key, places in plot["series"]:
        found = [(x, numbers) for name, x in places if (numbers := values(rows, name, key))]
        if found:
            curves[label] = [(x, *mean_and_error(numbers)) for x, numbers in found]
    references = [(label, values(rows, name, key)) for label, key, name in plot.get("references", ())]
    levels = {label: statistics.fmean(numbers) for label, numbers in references if numbers}
    return curves, levels | plot.get("levels", {})


def bits_per_byte(row: dict) -> list[dict]:
    """The losses of a training in bits a byte, each with the density of its own split's text."""
    metrics = row["metrics"]
    density = {"loss": metrics["bytes_per_token"], "validation_loss": metrics["validation_bytes_per_token"]}
    units = {name: math.log(2) * (bytes_per_token or 1.0) for name, bytes_per_token in density.items()}
    return [
        {key: value / units[key] if key in units else value for key, value in record.items()}
        for record in row["history"]
    ]


def sample_text(rows: list[dict], workdir: Path) -> str:
    """Two samples of every row, or a few lines of short ones, for people who look before they read."""
    parts = []
    for row in rows:
        path = workdir / "jobs" / row["job"] / "samples.txt"
        if row["verb"] == "sample" and path.exists():
            text = path.read_text()
            shown = [first_lines(text)] if in_lines(row) else text.split(SEPARATOR)[:2]
            parts.append(f"## {row['row']}, seed {row['seed']}\n")
            parts += [f"```\n{text.strip(chr(10))}\n```\n" for text in shown]
    return "\n".join(parts)


SEPARATOR = "\n" + "=" * 100 + "\n"
LINES, WIDTH = 8, 160


def in_lines(row: dict) -> bool:
    """Whether the samples of a result are one a line; results without a domain are of text."""
    return row.get("domain") in IN_LINES


def first_lines(text: str) -> str:
    """The first lines of a file of samples, long ones cut, and how many there are."""
    lines = text.splitlines()
    shown = [line if len(line) <= WIDTH else f"{line[:WIDTH]}..." for line in lines[:LINES]]
    left = len(lines) - len(shown)
    return "\n".join([*shown, *([f"and {left} more"] if left else [])]) + "\n"


def describe(row: dict, workdir: Path) -> str:
    """What one job gave, for the terminal: its metrics, and its samples when it has some."""
    path = workdir / "jobs" / row["job"] / "samples.txt"
    text = path.read_text() if row["verb"] == "sample" and path.exists() else ""
    samples = (first_lines(text) if in_lines(row) else text) + "\n" if text else ""
    lines = [[key, f"{value:.6g}" if isinstance(value, float) else value] for key, value in row["metrics"].items()]
    return samples + terminal(["metric", row["row"]], lines) + f"\n\nin {workdir / 'jobs' / row['job']}"
