"""The verb `table`: a Markdown table, plots and samples from rows, which may be the committed ones."""

import itertools
import json
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from configs.base import VARIANTS
from diffusion.report.rows import PACKAGES, read_rows, write_rows
from diffusion.report.tables import Column, assemble, markdown, terminal, values
from diffusion.storage import atomic_write, for_terminal
from experiments import machines
from experiments.curves import draw
from experiments.layout import check_layout
from experiments.plan import plan
from experiments.tasks import task_of_row
from experiments.tasks.images import grid_name
from experiments.tasks.prompted_images import MONTAGE
from experiments.tasks.text import SEPARATOR

PUBLISHED = Path(__file__).parent


def regenerate(module: ModuleType, config: ConfigDict, workdir: Path, committed: bool, publish: bool) -> None:
    """Write a table from the existing rows of the work directory, or from the committed rows.

    Committed rows need no further flags: seeds and the folder of the data are taken from the rows.

    Raises:
      ValueError: for no rows, or jobs of an earlier version.
    """
    if committed:
        source = PUBLISHED / "results" / f"{config.table}.{config.variant}.jsonl"
        rows = read_rows(source)
    else:
        check_layout(workdir)
        source = workdir / "jobs"
        completed = [job for job in plan(list(module.rows(config)), config) if job.done(workdir)]
        rows = [read_result(job.folder(workdir)) | {"row": job.row} for job in completed]
    if not rows:
        raise ValueError(f"table: no rows in {source}; compute them with `launch.py run --config=...`")
    write(module, with_settings_of(config, rows) if committed else config, rows, workdir, publish, committed)


def with_settings_of(config: ConfigDict, rows: list[dict]) -> ConfigDict:
    """Copy of the config with the seeds and the folder of the data of these rows."""
    config = config.copy_and_resolve_references()
    config.seeds = tuple(sorted({row["seed"] for row in rows}))
    # Rows of synthetic data have no folder.
    config.data.path = max(row["config"]["data"]["path"] for row in rows)
    return config


def read_result(folder: Path) -> dict:
    """Result of one job."""
    return json.loads((folder / "result.json").read_text())


def write(
    module: ModuleType, config: ConfigDict, rows: list[dict], workdir: Path, publish: bool, committed: bool = False
) -> None:
    """Write table, plots and samples into the work directory, and into experiments/ when published.

    Images of samples are those of the jobs of the work directory, or the committed ones of committed rows.
    """
    name = f"{config.table}.{config.variant}"
    folder = workdir / "tables" / name
    text, printed = render(module, config, rows)
    illustrated = {row["name"] for row in module.rows(config) if row.get("pictured", True)}
    images = draw(module, config, rows, folder)
    shown = [row for row in rows if row["row"] in illustrated]
    if committed:
        images += committed_images(name, shown, folder)
    else:
        for task, group in itertools.groupby(shown, task_of_row):
            images += task.collect(list(group), workdir, folder)
    samples = sample_text(rows, workdir)
    body = text + "".join(f"\n![{path.stem}]({path.name})\n" for path in images)
    atomic_write(folder / "table.md", body)
    write_rows(folder / "rows.jsonl", rows)
    if samples:
        atomic_write(folder / "samples.md", samples)
    print(f"\n{printed}\n")
    for path in (folder / "table.md", *images, *([folder / "samples.md"] if samples else []), folder / "rows.jsonl"):
        print(f"wrote {for_terminal(path)}")
    if publish:
        write_rows(PUBLISHED / "results" / f"{name}.jsonl", rows)
        for path in images:
            target = PUBLISHED / "tables" / f"{name}.{path.name}"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
        links = "".join(f"\n![{path.stem}]({name}.{path.name})\n" for path in images)
        atomic_write(PUBLISHED / "tables" / f"{name}.md", text + links)
        print(f"published experiments/tables/{name}.md")


def committed_images(name: str, rows: list[dict], folder: Path) -> list[Path]:
    """Copies of the committed images of samples, which cannot be drawn from rows."""
    images = [MONTAGE, *(grid_name(row) for row in rows if row["verb"] == "sample")]
    sources = {image: PUBLISHED / "tables" / f"{name}.{image}" for image in images}
    found = {folder / image: source for image, source in sources.items() if source.exists()}
    for image, source in found.items():
        atomic_write(image, source.read_bytes())
    return list(found)


def render(module: ModuleType, config: ConfigDict, rows: list[dict]) -> tuple[str, str]:
    """Table in Markdown, with its provenance, and table for the terminal."""
    table = module.TABLE
    columns = [Column(*column) for column in table["columns"]]
    names = [row["name"] for row in module.rows(config) if row.get("shown", True)]
    comparable = config.variant in table.get("comparable", (config.variant,))
    figures = table.get("figures", ())
    # Where a variant is not compared with the paper, columns without measurements are omitted.
    measured = [column for column in columns if comparable or any(values(rows, name, column.key) for name in names)]
    omitted = [column.title for column in columns if column not in measured]
    # Figures of published networks say nothing beside those of small ones with random weights.
    published = table["published"] if config.variant in table.get("published_variants", VARIANTS) else {}
    headings, body = assemble(names, measured, rows, published, comparable, table.get("tolerance"), figures)
    seeds = sorted({row["seed"] for row in rows})
    command = f"python launch.py run --config=configs/{config.table}.py:{config.variant}"
    command += "" if seeds == [0] else f' --config.seeds="{tuple(seeds)}"'
    weighted = any(row["config"].get("weights") for row in rows)
    command += " --config.weights=FOLDER" if weighted else ""
    command += (
        " --config.data.path=FOLDER" if not weighted and any(row["config"]["data"]["path"] for row in rows) else ""
    )
    usual = module.get_config(config.variant).data
    found = {name: config.data.get(name, usual[name]) for name in ("source", "labels", "field", "source_field")}
    own = {name: value for name, value in found.items() if value != usual[name]}
    command += "".join(f" --config.data.{name}={value}" for name, value in own.items())
    first, versions = rows[0], rows[0]["versions"]
    # Keys of committed rows are sorted by name, so the order is set here.
    packages = ", ".join(f"{name} {versions[name]}" for name in ("python", *PACKAGES) if name in versions)
    provenance = (
        f"Made by `{command}` at commit {', '.join(sorted({row['commit'] for row in rows}))} on "
        f"{first['device_count']} x {first['device_kind']} ({packages}); {len(seeds)} seed(s), ± is the standard error "
        f"over seeds{bracket_note(rows)}."
    )
    provenance += f" Not measured here: {', '.join(omitted)}." if omitted else ""
    provenance += "".join(f" {text}." for text in sorted({row["signature"] for row in rows if "signature" in row}))
    provenance += mixed_data(rows)
    spread = machines.note(measured, names, machines.read(f"{config.table}.{config.variant}"), rows)
    notes = "\n\n".join(filter(None, (table["notes"], spread, provenance)))
    text = f"# {table['title']} ({config.variant})\n\n{markdown(headings, body)}\n\n{notes}\n"
    return text, f"{table['title']} ({config.variant})\n\n{terminal(headings, body)}"


def mixed_data(rows: list[dict]) -> str:
    """A sentence on sources whose content differs among the rows, such as another Python's standard library."""
    found: dict[str, dict[str, set]] = {}
    for row in rows:
        data = {name: value for name, value in row["config"]["data"].items() if name != "cache_dir"}
        found.setdefault(json.dumps(data, sort_keys=True), {}).setdefault(row.get("data", ""), set()).add(row["row"])
    mixed = [[min(names) for names in versions.values()] for versions in found.values() if len(versions) > 1]
    return "".join(
        f" The data of {' and '.join(map(repr, each))} differ; these rows cannot be compared." for each in mixed
    )


def bracket_note(rows: list[dict]) -> str:
    """Meaning of the brackets in cells, for models with several sets of samples."""
    counts = sorted({len(row["sets"]) for row in rows if "sets" in row})
    if not counts:
        return ""
    sets = " or ".join(map(str, counts))
    return f"; in brackets, half the 95 % interval (Student's) over {sets} sets of samples of one model"


def sample_text(rows: list[dict], workdir: Path) -> str:
    """Two samples per row, or the first lines of short samples."""
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
    """Returns whether a result has one sample per line; results without a domain are text."""
    return task_of_row(row).LINES


def first_lines(text: str) -> str:
    """First lines of a file of samples, truncated to `WIDTH`, and the number of the remaining lines."""
    lines = text.splitlines()
    shown = [line if len(line) <= WIDTH else f"{line[:WIDTH]}..." for line in lines[:LINES]]
    remaining = len(lines) - len(shown)
    return "\n".join([*shown, *([f"and {remaining} more"] if remaining else [])]) + "\n"


def describe(row: dict, workdir: Path) -> str:
    """Result of one job for the terminal: its metrics, and its samples if any."""
    path = workdir / "jobs" / row["job"] / "samples.txt"
    text = path.read_text() if row["verb"] == "sample" and path.exists() else ""
    samples = (first_lines(text) if in_lines(row) else text) + "\n" if text else ""
    lines = [[key, f"{value:.6g}" if isinstance(value, float) else value] for key, value in row["metrics"].items()]
    return samples + terminal(["metric", row["row"]], lines) + f"\n\nin {workdir / 'jobs' / row['job']}"
