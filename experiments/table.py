"""The verb `table`: a Markdown table, plots and samples from rows, which may be the committed ones."""

import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from configs.base import VARIANTS
from diffusion.report.rows import read_rows, write_rows
from diffusion.report.tables import Column, assemble, markdown, terminal, values
from diffusion.storage import atomic_write, for_terminal, path_of
from experiments import join, machines, pivots
from experiments import missing as partial
from experiments.curves import draw
from experiments.layout import job_folder
from experiments.mixtures import commits, environments, mixed_data
from experiments.plan import plan
from experiments.settings import check_keys, with_settings
from experiments.tasks import task_of_row
from experiments.tasks.images import grid_name
from experiments.tasks.prompted_images import MONTAGE
from experiments.tasks.text import SEPARATOR

PUBLISHED = Path(__file__).parent


def regenerate(
    module: ModuleType,
    config: ConfigDict,
    workdir: Path,
    committed: bool,
    publish: bool,
    joined: Sequence[str] = (),
) -> None:
    """Write a table from the existing rows of the work directory and those `joined`, or from the committed rows.

    Committed rows need no further flags: seeds and the folder of the data are taken from the rows. A partial table says
    what is missing.

    Raises:
      ValueError: for no rows, jobs of an earlier version, a column or plot of a field that no row reads, joined rows
        that do not agree, or rows that cannot be published because they are partial or joined.
    """
    check_keys(module, config)
    missing = ""
    if committed:
        if joined:
            raise ValueError("--join: the committed rows are those of one table; leave out --results or --join")
        source = PUBLISHED / "results" / f"{config.table}.{config.variant}.jsonl"
        rows = read_rows(source)
    else:
        source, places = workdir / "jobs", [workdir, *map(path_of, joined)]
        jobs = plan(list(module.rows(config)), config)
        rows, missing = join.rows_of(jobs, places), partial.note(jobs, places)
    if not rows:
        raise ValueError(f"table: no rows in {source}; compute them with `launch.py run --config=...`")
    if publish and (missing or joined):
        problem = "rows of several work directories" if joined else f"{missing.splitlines()[0].partition('.')[0]}"
        raise ValueError(f"--publish: {problem}; publish the whole table of one work directory")
    settings = with_settings_of(config, rows) if committed else config
    write(module, settings, rows, workdir, publish, committed, missing)


def with_settings_of(config: ConfigDict, rows: list[dict]) -> ConfigDict:
    """Copy of the config with the seeds and the folder of the data of these rows."""
    config = config.copy_and_resolve_references()
    config.seeds = tuple(sorted({row["seed"] for row in rows}))
    # Rows of synthetic data have no folder.
    config.data.path = max(row["config"]["data"]["path"] for row in rows)
    return config


def write(
    module: ModuleType,
    config: ConfigDict,
    rows: list[dict],
    workdir: Path,
    publish: bool,
    committed: bool = False,
    missing: str = "",
) -> None:
    """Write table, plots and samples into the work directory, and into experiments/ when published.

    Images of samples are those of the jobs of the rows, or the committed ones of committed rows. `missing` is what a
    partial table says of the jobs that are not done.
    """
    name = f"{config.table}.{config.variant}"
    folder = workdir / "tables" / f"{name}{module.TABLE.get('suffix', '')}"
    measured = with_settings(module, config, rows)
    text, printed = render(module, config, measured, missing)
    found = pivots.report(module, config, measured)
    text, printed = (f"{each.rstrip()}\n\n{found}" if found else each for each in (text, printed))
    illustrated = {row["name"] for row in module.rows(config) if row.get("pictured", True)}
    images = draw(module, config, join.plotted(measured), folder)
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


def render(module: ModuleType, config: ConfigDict, rows: list[dict], missing: str = "") -> tuple[str, str]:
    """Table in Markdown, with what is missing and its provenance, and table for the terminal."""
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
    timed, times = join.by_device(rows, [column.key for column in measured if column.key.startswith(machines.TIMES)])
    headings, body = assemble(
        names, measured, timed, published, comparable, table.get("tolerance"), figures, machines.TIMES
    )
    marked, codes = join.other_commits(rows)
    body = [[f"{name} †" if name in marked else name, *cells] for name, *cells in body]
    seeds = sorted({row["seed"] for row in rows})
    command = f"python launch.py run --config=configs/{config.table}.py:{config.variant}"
    command += "" if seeds == [0] else f' --config.seeds="{tuple(seeds)}"'
    command += table.get("words", "")
    weighted = any(row["config"].get("weights") for row in rows)
    command += " --config.weights=FOLDER" if weighted else ""
    command += (
        " --config.data.path=FOLDER" if not weighted and any(row["config"]["data"]["path"] for row in rows) else ""
    )
    command += "".join(f" {shlex.quote(word)}" for word in overrides(config, module.get_config(config.variant)))
    together = max((row.get("population", 1) for row in rows), default=1)
    command += f" --population={together}" if together > 1 else ""
    provenance = (
        f"Made by `{command}` at commit {', '.join(commits(rows))} on {environments(rows)}; {len(seeds)} seed(s), "
        f"± is the standard error over seeds{bracket_note(rows)}."
    )
    provenance += f" Not measured here: {', '.join(omitted)}." if omitted else ""
    provenance += "".join(f" {text}." for text in sorted({row["signature"] for row in rows if "signature" in row}))
    provenance += mixed_data(rows)
    spread = machines.note(measured, names, machines.read(f"{config.table}.{config.variant}"), rows)
    notes = "\n\n".join(filter(None, (table["notes"], spread, times, codes, provenance)))
    title, before = f"{table['title']} ({config.variant})", f"{missing}\n\n" if missing else ""
    text = f"# {title}\n\n{before}{markdown(headings, body)}\n\n{notes}\n"
    return text, "\n\n".join(filter(None, (title, terminal(headings, body), times, codes, missing)))


def overrides(config: ConfigDict, usual: ConfigDict, section: str = "") -> list[str]:
    """Words of the command line for the fields of a config that differ from the usual ones, but for seeds and paths."""
    words = []
    for name, value in config.items():
        field, default = f"{section}{name}", usual.get(name)
        if isinstance(value, ConfigDict) and isinstance(default, ConfigDict):
            words += overrides(value, default, f"{field}.")
        elif value != default and field not in ("seeds", "weights", "data.path", "data.cache_dir"):
            words.append(f"--config.{field}={value}")
    return words


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
        if texts := shown_samples(row, workdir):
            parts.append(f"## {row['row']}, seed {row['seed']}\n")
            parts += [f"```\n{text.strip(chr(10))}\n```\n" for text in texts]
    return "\n".join(parts)


def shown_samples(row: dict, workdir: Path) -> list[str]:
    """The first two samples of a result, or the first lines of short samples; none where there is no text."""
    path = job_folder(row, workdir) / "samples.txt"
    if row["verb"] != "sample" or not path.exists():
        return []
    text = path.read_text(errors="replace")
    return [first_lines(text)] if in_lines(row) else text.split(SEPARATOR)[:2]


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
    text = path.read_text(errors="replace") if row["verb"] == "sample" and path.exists() else ""
    samples = (first_lines(text) if in_lines(row) else text) + "\n" if text else ""
    lines = [[key, f"{value:.6g}" if isinstance(value, float) else value] for key, value in row["metrics"].items()]
    return samples + terminal(["metric", row["row"]], lines) + f"\n\nin {workdir / 'jobs' / row['job']}"
