"""Rows and tables: formatted values, and empty cells without results."""

import math
import subprocess
from types import SimpleNamespace

from diffusion.report import rows, tables
from diffusion.report.tables import Column, assemble, cell, difference, markdown, terminal

PERPLEXITY = Column("perplexity", "perplexity", ".2f")


def row(name, seed=0, **metrics):
    return {"row": name, "seed": seed, "metrics": metrics}


ROWS = [
    row("MDLM", 0, perplexity=23.0, entropy=5.0),
    row("MDLM", 1, perplexity=24.0, entropy=None),
    row("MDLM", 2, perplexity=25.0),
    row("AR", perplexity=17.0),
    row("AR", entropy=4.0),  # another job of the same row
]


def test_values_are_the_measurements_of_the_row():
    assert tables.values(ROWS, "MDLM", "perplexity") == [23.0, 24.0, 25.0]
    assert tables.values(ROWS, "MDLM", "entropy") == [5.0]
    assert tables.values(ROWS, "AR", "entropy") == [4.0] and tables.values(ROWS, "nobody", "entropy") == []
    assert tables.values([row("zero", entropy=0.0)], "zero", "entropy") == [0.0], "zero is a measurement"


def test_cells_hold_the_mean_its_standard_error_over_seeds_and_the_interval_over_sets():
    assert cell([], ".2f") == ""
    assert cell([23.456], ".2f") == "23.46"
    assert cell([23.0, 24.0, 25.0], ".3f") == f"24.000 ± {1 / math.sqrt(3):.3f}"
    # The interval over sets of samples is in brackets.
    assert cell([594.2], ".1f", [9.5]) == "594.2 (± 9.5)"
    assert cell([590.0, 594.0], ".1f", [9.5, 10.5]) == "592.0 ± 2.0 (± 10.0)"
    columns = [Column("valid", "valid", ".1f"), Column("qed", "QED", ".2f")]
    _, body = assemble(
        ["base"], columns, [row("base", valid=594.2, valid_interval=9.5, qed=0.5)], {"base": {"valid": 600.0}}
    )
    assert body == [["base", "594.2 (± 9.5)", "600.0", "-5.8", "0.50"]]


def test_columns_without_published_figures_have_no_difference():
    headings, body = assemble(["AR", "MDLM", "later"], [PERPLEXITY, Column("entropy", "H")], ROWS, {})
    assert headings == ["row", "perplexity", "H"]
    assert body == [["AR", "17.00", "4.000"], ["MDLM", "24.00 ± 0.58", "5.000"], ["later", "", ""]]


def test_published_figures_difference_and_verdict():
    published = {"AR": {"perplexity": 17.54}, "MDLM": {"perplexity": 23.21}, "later": {"perplexity": 20.0}}
    headings, body = assemble(
        ["AR", "MDLM", "later", "ours"], [PERPLEXITY], ROWS, published, tolerance={"perplexity": 0.6}
    )
    assert headings == ["row", "perplexity", "published", "difference"]
    assert body == [
        ["AR", "17.00", "17.54", "-0.54 (within 0.6)"],
        ["MDLM", "24.00 ± 0.58", "23.21", "+0.79 (outside 0.6)"],
        ["later", "", "20.00", ""],
        ["ours", "", "", ""],
    ]
    assert difference([17.0], 18.0, PERPLEXITY, {"perplexity": 0.6}) == "-1.00 (outside 0.6)"
    _, body = assemble(["AR"], [PERPLEXITY], ROWS, published)
    assert body == [["AR", "17.00", "17.54", "-0.54"]]
    headings, body = assemble(["AR"], [PERPLEXITY], ROWS, published, comparable=False)
    assert headings == ["row", "perplexity", "published"] and body == [["AR", "17.00", "17.54"]]


def test_columns_of_published_texts_are_first_and_unchanged():
    figures = (("published (withdrawn)", {"MDLM": "<= 17.90", "later": "not found"}), ("of rows not here", {"x": "1"}))
    published = {"AR": {"perplexity": 17.54}}
    headings, body = assemble(["AR", "MDLM", "later"], [PERPLEXITY], ROWS, published, figures=figures)
    assert headings == ["row", "published (withdrawn)", "perplexity", "published", "difference"]
    assert body == [
        ["AR", "", "17.00", "17.54", "-0.54"],
        ["MDLM", "<= 17.90", "24.00 ± 0.58", "", ""],
        ["later", "not found", "", "", ""],
    ]


def test_tables_print_numbers_as_they_were_formatted():
    """Renderers do not reformat: 17.00 stays 17.00, and names that look like numbers stay names."""
    lines = markdown(["row", "x"], [["007", "17.00"], ["b", ""]]).splitlines()[2:]
    assert [[part.strip() for part in line.strip("|").split("|")] for line in lines] == [["007", "17.00"], ["b", ""]]
    assert terminal(["row", "x"], [["007", "17.00"]]).splitlines()[-1].split() == ["007", "17.00"]


def test_rows_are_read_as_written(tmp_path):
    path = tmp_path / "results" / "a.jsonl"
    assert rows.read_rows(path) == []
    rows.write_rows(path, ROWS)
    assert rows.read_rows(path) == ROWS
    rows.write_rows(path, ROWS[:1])
    assert rows.read_rows(path) == ROWS[:1]


def test_provenance_names_commit_versions_and_devices(monkeypatch):
    provenance = rows.provenance()
    assert (provenance["device_count"], provenance["device_kind"], provenance["processes"]) == (8, "cpu", 1)
    assert {"python", "jax", "jaxlib", "flax", "optax", "numpy"} == set(provenance["versions"])
    answers = {"status": "", "rev-parse": "0123456789ab\n"}

    def run(command, **options):
        if command[1] not in answers:
            raise subprocess.CalledProcessError(128, command)
        return SimpleNamespace(stdout=answers[command[1]])

    monkeypatch.setattr(rows.subprocess, "run", run)
    assert rows.commit() == "0123456789ab"
    answers["status"] = " M diffusion/build.py\n"
    assert rows.commit() == "0123456789ab+", "the sources have changes"
    answers.clear()
    assert rows.commit() == "unknown", "without a git repository"
