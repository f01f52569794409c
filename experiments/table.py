"""The verb `table`: rows to a Markdown table, plots and samples, in the work directory or beside the code."""

import itertools
import json
import os
import shutil
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from diffusion.report.rows import PACKAGES, read_rows, write_rows
from diffusion.report.tables import Column, assemble, markdown, terminal, values
from experiments.curves import draw
from experiments.plan import atomic_write, plan
from experiments.tasks import task_of_row
from experiments.tasks.images import grid_name
from experiments.tasks.prompted_images import MONTAGE
from experiments.tasks.text import SEPARATOR

PUBLISHED = Path(__file__).parent


def regenerate(module: ModuleType, config: ConfigDict, workdir: Path, committed: bool, publish: bool) -> None:
    """Write a table from rows that are there: those of the work directory, or the committed ones.

    Committed rows need no further flags: their seeds and their data's folder are those of the rows.

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
    write(module, as_made(config, rows) if committed else config, rows, workdir, publish, committed)


def as_made(config: ConfigDict, rows: list[dict]) -> ConfigDict:
    """The config with the seeds and the data's folder that its rows were made with."""
    made = config.copy_and_resolve_references()
    made.seeds = tuple(sorted({row["seed"] for row in rows}))
    # Rows of made-up data have no folder, whatever the command line gave.
    made.data.path = max(row["config"]["data"]["path"] for row in rows)
    return made


def read_rows_of(folder: Path) -> dict:
    """The result of one job."""
    return json.loads((folder / "result.json").read_text())


def write(
    module: ModuleType, config: ConfigDict, rows: list[dict], workdir: Path, publish: bool, committed: bool = False
) -> None:
    """Table, plots and samples into the work directory's tables, and beside the code when published.

    Pictures of samples are those of the work directory's jobs, or for committed rows the committed ones.
    """
    name = f"{config.table}.{config.variant}"
    folder = workdir / "tables" / name
    text, printed = render(module, config, rows)
    pictured = {row["name"] for row in module.rows(config) if row.get("pictured", True)}
    pictures = draw(module, config, rows, folder)
    shown = [row for row in rows if row["row"] in pictured]
    if committed:
        pictures += committed_pictures(name, shown, folder)
    else:
        for task, group in itertools.groupby(shown, task_of_row):
            pictures += task.collect(list(group), workdir, folder)
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
        write_rows(PUBLISHED / "results" / f"{name}.jsonl", rows)
        for path in pictures:
            target = PUBLISHED / "tables" / f"{name}.{path.name}"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
        links = "".join(f"\n![{path.stem}]({name}.{path.name})\n" for path in pictures)
        atomic_write(PUBLISHED / "tables" / f"{name}.md", text + links)
        print(f"published experiments/tables/{name}.md")


def committed_pictures(name: str, rows: list[dict], folder: Path) -> list[Path]:
    """Copies of the committed pictures of samples, which cannot be drawn from rows."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [MONTAGE, *(grid_name(row) for row in rows if row["verb"] == "sample")]
    sources = {picture: PUBLISHED / "tables" / f"{name}.{picture}" for picture in wanted}
    return [shutil.copyfile(source, folder / picture) for picture, source in sources.items() if source.exists()]


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
    command += " --config.data.path=FOLDER" if any(row["config"]["data"]["path"] for row in rows) else ""
    first, versions = rows[0], rows[0]["versions"]
    # Fields of committed rows are sorted by name.
    packages = ", ".join(f"{name} {versions[name]}" for name in ("python", *PACKAGES) if name in versions)
    made = (
        f"Made by `{command}` at commit {', '.join(sorted({row['commit'] for row in rows}))} on "
        f"{first['device_count']} x {first['device_kind']} ({packages}); {len(seeds)} seed(s), ± is the standard error "
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


LINES, WIDTH = 8, 160


def in_lines(row: dict) -> bool:
    """Whether the samples of a result are one a line; results without a domain are of text."""
    return task_of_row(row).LINES


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
