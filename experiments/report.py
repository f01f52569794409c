"""The verb `report`: one HTML page of a work directory with all that it holds, which loads nothing from elsewhere."""

import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from diffusion.report.charts import COLORS, loss_chart
from diffusion.report.markup import figure, from_markdown, grid, inline, page
from diffusion.storage import atomic_write
from diffusion.train.writers import read_metrics
from experiments import cautions, table
from experiments.layout import check_layout
from experiments.mixtures import device, packages
from experiments.plan import plan
from experiments.records import STARTED, read
from experiments.results import check_rows, read_result
from experiments.states import STATES, State, amount, several_tables, states, stored, table_of

PAGE = "report.html"


def run(module: ModuleType | None, config: ConfigDict | None, workdir: Path) -> None:
    """Write the page of a table, which is written again first, or without a config that of the whole work directory.

    Raises:
      ValueError: for a work directory without jobs, or of an earlier version.
    """
    if not any((workdir / "jobs").glob("*/config.json")):
        raise ValueError(f"--workdir: {workdir} holds no jobs; pass the folder that `launch.py run` writes to")
    check_layout(workdir)
    jobs, name, path = stored(workdir), "", workdir / PAGE
    if module is not None and config is not None:
        jobs, name = plan(list(module.rows(config)), config), f"{config.table}.{config.variant}"
        path = workdir / "tables" / name / PAGE
        if any(job.done(workdir) for job in jobs):
            table.regenerate(module, config, workdir, committed=False, publish=False)
    found = states(jobs, workdir)
    tables = [file.parent for file in sorted((workdir / "tables").glob(f"{name or '*'}/table.md"))]
    atomic_write(path, report(name or workdir.resolve().name, found, tables, workdir))
    print(f"wrote {path}")


def report(name: str, found: list[State], tables: list[Path], workdir: Path) -> str:
    """The page of these jobs and tables."""
    rows = [read_result(each.job.folder(workdir)) | {"row": each.job.row} for each in found if each.name == "done"]
    check_rows(rows)
    warnings = [*cautions.of_jobs(found), *cautions.of_rows(rows), *cautions.of_tables(tables, workdir, rows)]
    sections = {
        "Tables": "".join(f'<div class="card">{markup_of(folder)}</div>' for folder in tables),
        "Loss curves": curves(found, workdir),
        "Samples": samples(rows, workdir),
        "Jobs": f'<div class="card jobs">{listing(found, rows)}</div>',
        "Provenance": f'<div class="card">{provenance(rows, found, workdir)}</div>',
    }
    sections = {heading: body for heading, body in sections.items() if body}
    links = "".join(f'<a href="#{slug(heading)}">{heading}</a>' for heading in sections)
    body = "".join(f'<h2 id="{slug(heading)}">{heading}</h2>{body}' for heading, body in sections.items())
    return page(f"{name}: report", header(name, found, workdir) + alert(warnings) + f"<nav>{links}</nav>{body}")


def slug(heading: str) -> str:
    """The anchor of a section."""
    return heading.lower().replace(" ", "-")


def header(name: str, found: list[State], workdir: Path) -> str:
    """Title, place, time, and how many jobs are in each state."""
    counts = [(state, sum(each.name == state for each in found)) for state in STATES]
    pills = "".join(f'<span class="pill">{count} {state}</span>' for state, count in counts if count)
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    facts = f"{amount(len(found), 'job')} of the work directory <code>{escape(str(workdir))}</code>, written {written}"
    return f'<h1>{escape(name)}</h1><p class="facts">{facts}</p><div class="pills">{pills}</div>'


def alert(warnings: Sequence[str]) -> str:
    """The warnings, or that there are none."""
    if not warnings:
        return '<p class="soft">No warnings: every job is done, on one kind of device, at one commit.</p>'
    return f'<h2>Warnings</h2><div class="card warning"><ul>{items(warnings)}</ul></div>'


def items(lines: Sequence[str]) -> str:
    """Items of a list."""
    return "".join(f"<li>{inline(line)}</li>" for line in lines)


def markup_of(folder: Path) -> str:
    """A table with its plots; grids of samples have a section of their own."""

    def image(caption: str, name: str) -> str:
        file = folder / name
        return figure(file, caption) if file.exists() and not name.startswith("samples-") else ""

    return from_markdown((folder / "table.md").read_text(errors="replace"), image)


def curves(found: list[State], workdir: Path) -> str:
    """A chart for each row and objective with trainings, which has a line for each of them."""
    runs: dict[tuple[str, str], dict[str, list]] = {}
    named = several_tables(found)
    for each in found:
        job = each.job
        if job.verb == "train" and (records := read_metrics(job.folder(workdir) / "metrics.jsonl")):
            about = f"{job.config['objective']['name']}{f', {table_of(job)}' if named else ''}"
            lines = runs.setdefault((job.row or job.id, about), {})
            state = "" if each.name == "done" else f" ({each.name})"
            label = f"seed {job.seed}{state}"
            # Trainings of a row with other settings have the same seed.
            lines[label if label not in lines else f"{label} {job.id.rpartition('-')[2]}"] = records
    charts = [chart_of(row, about, lines) for (row, about), lines in runs.items()]
    if not any(charts):
        return ""
    note = "Objective by step as it was logged: training (lines) and validation (dots)."
    return f'<p class="soft">{note}</p><div class="charts">{"".join(charts)}</div>'


def chart_of(row: str, about: str, lines: dict[str, list]) -> str:
    """A chart with its heading and its legend; empty without any loss."""
    keys = "".join(
        f'<span><svg viewBox="0 0 12 12"><circle class="color{number % COLORS}" cx="6" cy="6" r="5"/></svg>'
        f"{escape(label)}</span>"
        for number, label in enumerate(lines)
    )
    chart = loss_chart(lines)
    heading = f'<h3>{escape(row)} <span class="soft">{escape(about)}</span></h3>'
    return f'<div class="card">{heading}{chart}<div class="legend">{keys}</div></div>' if chart else ""


def samples(rows: list[dict], workdir: Path) -> str:
    """Texts and image grids of the sampling jobs; after the first of a row they are folded."""
    cards: dict[tuple[str, str], list[str]] = {}
    for row in (row for row in rows if row["verb"] == "sample"):
        texts = "".join(f"<pre>{escape(text.strip(chr(10)))}</pre>" for text in table.shown_samples(row, workdir))
        file = workdir / "jobs" / row["job"] / "samples.png"
        shown = (figure(file, "grid of samples") if file.exists() else "") + texts
        if shown:
            heading = f'<h3>{escape(row["row"])} <span class="soft">seed {row["seed"]}</span></h3>'
            key = (row["config"]["table"], row["row"])
            cards.setdefault(key, []).append(f'<div class="card">{heading}{shown}</div>')
    if not cards:
        return ""
    further = [card for each in cards.values() for card in each[1:]]
    body = f'<div class="samples">{"".join(each[0] for each in cards.values())}</div>'
    if further:
        summary = f"<summary>{len(further)} more, of other seeds</summary>"
        body += f'<details class="more">{summary}<div class="samples">{"".join(further)}</div></details>'
    return body


def listing(found: list[State], rows: list[dict]) -> str:
    """A line for each job, which unfolds to its metrics."""
    metrics = {row["job"]: row["metrics"] for row in rows}
    named = several_tables(found)
    lines = []
    for each in found:
        job, detail, numbers = each.job, escape(each.detail), metrics.get(each.job.id, {})
        listed = "".join(f"<dt>{escape(key)}</dt><dd>{value_text(value)}</dd>" for key, value in numbers.items())
        unfolded = f"<details><summary>{detail}</summary><dl>{listed}</dl></details>" if listed else detail
        place = [escape(table_of(job))] if named else []
        lines.append([each.name, job.verb, *place, escape(job.row or job.id), str(job.seed), unfolded])
    headings = ["state", "verb", *(["table"] if named else []), "row", "seed", "details"]
    return grid(headings, lines, [each.name for each in found])


def value_text(value: object) -> str:
    """A metric as text."""
    return f"{value:.6g}" if isinstance(value, float) else escape(str(value))


def provenance(rows: list[dict], found: list[State], workdir: Path) -> str:
    """Commits, packages, devices, seeds, data and commands of the results."""
    started = [read(each.job.folder(workdir) / STARTED) for each in found]
    commands = dict.fromkeys(record["command"] for record in started if "command" in record)
    sources = {(row["config"]["data"]["source"], row["data"][:12]) for row in rows if row.get("data")}
    facts = {
        "commits": sorted({row["commit"] for row in rows}),
        "packages": list(dict.fromkeys(map(packages, rows))),
        "devices": list(dict.fromkeys(map(device, rows))),
        "hosts": list(dict.fromkeys(record["host"] for record in started if "host" in record)),
        "seeds": [", ".join(map(str, sorted({each.job.seed for each in found})))],
        "data": [f"{source} ({fingerprint})" for source, fingerprint in sorted(sources)],
        "tables": sorted({table_of(each.job) for each in found}),
        "commands": [f"`python {command}`" for command in commands],
    }
    shown = [(name, "<br>".join(map(inline, lines))) for name, lines in facts.items() if lines]
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{lines}</dd>' for name, lines in shown)}</dl>"
