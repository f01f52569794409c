"""Committed tables, compared with those of their committed rows, and the jobs of these rows."""

import importlib
import re
from pathlib import Path

import pytest

from diffusion.report import plots
from diffusion.report.rows import read_rows
from experiments import contents, table
from experiments.plan import plan

COMMITTED = Path(table.__file__).parent
NAMES = sorted(path.stem for path in (COMMITTED / "results").glob("*.jsonl"))
# Tables of a benchmark have no variant, and no rows.
TABLES = sorted(path.stem for path in (COMMITTED / "tables").glob("*.*.md"))
assert NAMES and NAMES == TABLES, "each table has its rows"


def loaded(name):
    """Return the module and the config of the variant of a committed table."""
    stem, variant = name.split(".")
    module = importlib.import_module(f"configs.{stem}")
    return module, module.get_config(variant)


@pytest.mark.parametrize("name", NAMES)
def test_committed_rows_give_the_committed_table(name, tmp_path, monkeypatch):
    """The text is bitwise equal after links are changed to the same folder; plots are named but not drawn."""
    for plot in ("lines", "loss_curves"):
        monkeypatch.setattr(plots, plot, lambda *_, **__: None)
    module, config = loaded(name)
    table.regenerate(module, config, tmp_path, committed=True, publish=False)
    remedy = f"python launch.py table --config=configs/{name.replace('.', '.py:')} --results --publish"
    generated = (tmp_path / "tables" / name / "table.md").read_text()
    committed = (COMMITTED / "tables" / f"{name}.md").read_text()
    assert generated == committed.replace(f"]({name}.", "]("), f"experiments/tables/{name}.md is stale; run `{remedy}`"
    rows, expected = tmp_path / "tables" / name / "rows.jsonl", COMMITTED / "results" / f"{name}.jsonl"
    assert rows.read_bytes() == expected.read_bytes(), f"rows are written differently; run `{remedy}`"
    missing = [
        link for link in re.findall(r"!\[.*?\]\((.*?)\)", committed) if not (COMMITTED / "tables" / link).exists()
    ]
    assert not missing, f"experiments/tables/{name}.md links to missing images; run `{remedy}`"


@pytest.mark.parametrize("name", NAMES)
def test_committed_rows_carry_the_ids_of_their_plan(name, monkeypatch):
    """Rows whose data are not part of the repository carry the hashes of the files that entered their ids."""
    module, config = loaded(name)
    rows = read_rows(COMMITTED / "results" / f"{name}.jsonl")
    hashes = {path: each for row in rows for path, each in row.get("contents", {}).items()}
    monkeypatch.setattr(contents, "content_hash", lambda path: hashes.get(path, ""))
    monkeypatch.setattr(contents, "reread", lambda: None)
    config = table.with_settings_of(config, rows)
    planned = {(job.id, job.seed, tuple(job.contents.items())) for job in plan(list(module.rows(config)), config)}
    others = [row for row in rows if (row["job"], row["seed"], tuple(row.get("contents", {}).items())) not in planned]
    names = [f"{row['verb']} {row['row']!r}, seed {row['seed']}" for row in others]
    assert not names, (
        f"{name}: `plan` gives other ids for {len(names)} rows, such as {names[0]}; add a field to configs/base.py for "
        "what is new, or run the rows with other settings again"
    )
