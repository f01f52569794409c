"""Rows, tables and plots: what is printed is what was measured, and what was not run is empty."""

import math
import statistics
import subprocess
from types import SimpleNamespace

import matplotlib.image
import pytest
from ml_collections import ConfigDict

from diffusion.report import plots, rows, tables
from diffusion.report.tables import Column, assemble, cell, markdown, terminal
from experiments import table as verb

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


def test_values_are_those_of_the_row_that_were_measured():
    assert tables.values(ROWS, "MDLM", "perplexity") == [23.0, 24.0, 25.0]
    assert tables.values(ROWS, "MDLM", "entropy") == [5.0]
    assert tables.values(ROWS, "AR", "entropy") == [4.0]
    assert tables.values(ROWS, "nobody", "entropy") == []
    assert tables.values([row("zero", entropy=0.0)], "zero", "entropy") == [0.0], "zero is a measurement"


def test_cells_hold_the_mean_and_its_standard_error_over_seeds():
    assert cell([], ".2f") == ""
    assert cell([23.456], ".2f") == "23.46"
    assert cell([23.0, 24.0, 25.0], ".3f") == f"24.000 ± {1 / math.sqrt(3):.3f}"


def test_cells_hold_the_interval_over_sets_of_samples_in_brackets():
    assert cell([594.2], ".1f", [9.5]) == "594.2 (± 9.5)"
    assert cell([590.0, 594.0], ".1f", [9.5, 10.5]) == "592.0 ± 2.0 (± 10.0)"
    columns = [Column("valid", "valid", ".1f"), Column("qed", "QED", ".2f")]
    rows = [row("base", 0, valid=594.2, valid_interval=9.5, qed=0.5)]
    assert assemble(["base"], columns, rows, {"base": {"valid": 600.0}})[1] == [
        ["base", "594.2 (± 9.5)", "600.0", "-5.8", "0.50"]
    ]


def test_columns_without_published_figures_stand_alone():
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
    _, untold = assemble(["AR"], [PERPLEXITY], ROWS, published)
    assert untold == [["AR", "17.00", "17.54", "-0.54"]]
    headings, body = assemble(["AR"], [PERPLEXITY], ROWS, published, comparable=False)
    assert headings == ["row", "perplexity", "published"] and body == [["AR", "17.00", "17.54"]]


def test_columns_of_others_figures_stand_first_and_are_printed_as_they_are():
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
    """No renderer reformats: 17.00 stays 17.00, and names that look like numbers stay names."""
    text = markdown(["row", "x"], [["007", "17.00"], ["b", ""]])
    assert [[part.strip() for part in line.strip("|").split("|")] for line in text.splitlines()][2:] == [
        ["007", "17.00"],
        ["b", ""],
    ]
    assert terminal(["row", "x"], [["007", "17.00"]]).splitlines()[-1].split() == ["007", "17.00"]


def test_rows_survive_the_file(tmp_path):
    path = tmp_path / "results" / "a.jsonl"
    assert rows.read_rows(path) == []
    rows.write_rows(path, ROWS)
    assert rows.read_rows(path) == ROWS
    rows.write_rows(path, ROWS[:1])
    assert rows.read_rows(path) == ROWS[:1]


def test_provenance_names_commit_versions_and_devices():
    made = rows.provenance()
    assert made["device_count"] == 8 and made["device_kind"] == "cpu" and made["processes"] == 1
    assert {"python", "jax", "jaxlib", "flax", "optax", "numpy"} == set(made["versions"])
    assert all(version[0].isdigit() for version in made["versions"].values())


def test_commit_marks_changed_sources_and_survives_without_git(monkeypatch):
    answers = {"status": "", "rev-parse": "0123456789ab\n"}

    def run(command, **options):
        return SimpleNamespace(stdout=answers[command[1]])

    monkeypatch.setattr(rows.subprocess, "run", run)
    assert rows.commit() == "0123456789ab"
    answers["status"] = " M diffusion/build.py\n"
    assert rows.commit() == "0123456789ab+"

    def fail(command, **options):
        raise subprocess.CalledProcessError(128, command)

    monkeypatch.setattr(rows.subprocess, "run", fail)
    assert rows.commit() == "unknown"


def picture(path):
    """Pixels of a PNG; fails for a blank one."""
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[0] > 200 and pixels.std() > 0.01
    return pixels


HISTORY = [{"step": 0, "loss": 3.0}, {"step": 10, "loss": 2.0, "validation_loss": 2.1}]


@pytest.fixture
def drawn(monkeypatch):
    """Figures, as they are when they are written."""
    figures, write = [], plots.save

    def save(figure, path):
        figures.append(figure)
        write(figure, path)

    monkeypatch.setattr(plots, "save", save)
    return figures


def test_loss_curves_show_every_run_in_the_colour_of_its_row(tmp_path, drawn):
    # A run that stopped before its first validation, and one without a record.
    runs = {"AR": [HISTORY, HISTORY[:1]], "MDLM": [HISTORY], "none": [[]]}
    plots.loss_curves(tmp_path / "loss.png", "title", runs, "bits per byte")
    picture(tmp_path / "loss.png")
    axes = drawn[0].axes[0]
    data = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    whole = [([0, 10], [3.0, 2.0]), ([10], [2.1])]
    assert data == [*whole, ([0], [3.0]), *whole]
    colours = [line.get_color() for line in axes.lines]
    assert len(set(colours[:3])) == len(set(colours[3:])) == 1 and colours[0] != colours[3]
    assert axes.get_legend_handles_labels()[1] == ["AR", "MDLM"]
    assert axes.get_ylabel() == "bits per byte"


def test_lines_show_points_errors_and_references(tmp_path, drawn):
    curve = [(8, 30.0, 1.0), (2, 90.0, 3.0)]
    plots.lines(tmp_path / "a.png", "t", {"ancestral": curve}, "NFE", "perplexity", log_y=True, references={"AR": 20.0})
    picture(tmp_path / "a.png")
    axes = drawn[0].axes[0]
    points, _, (bars,) = axes.containers[0]
    assert points.get_xydata().tolist() == [[2, 90], [8, 30]], "in the order of x"
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [[87, 93], [29, 31]]
    assert set(axes.lines[-1].get_ydata()) == {20.0} and axes.lines[-1].get_label() == "AR"
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "8"]
    assert axes.get_legend() and not drawn[0].legends
    plots.lines(tmp_path / "b.png", "t", {"ancestral": curve}, "NFE", "perplexity", log_x=False)
    assert drawn[1].axes[0].get_xscale() == drawn[1].axes[0].get_yscale() == "linear"
    # What is no count has round numbers at the axis, not its own.
    plots.lines(tmp_path / "c.png", "t", {"ancestral": [(3.917, 3.0, 0.1), (31.21, 2.0, 0.1)]}, "GFLOP", "perplexity")
    axis = drawn[2].axes[0].xaxis
    labels = [label.get_text() for which in (False, True) for label in axis.get_ticklabels(minor=which)]
    assert axis.get_scale() == "log" and {"5", "10", "20"} <= set(labels) and "3.917" not in labels


def test_many_lines_stay_apart_and_their_legend_stands_beside_them(tmp_path, drawn):
    labels = ["1 digit", *[(f"{digits} digits", target) for digits in (2, 4) for target in ("joint", "marginal")]]
    curves = {label: [(8, 30.0 + number, 1.0)] for number, label in enumerate(labels)}
    references = {f"row {number}": 20.0 + number for number in range(9)}
    plots.lines(tmp_path / "many.png", "t", curves, "x", "y", references=references)
    picture(tmp_path / "many.png")
    axes, (legend,) = drawn[0].axes[0], drawn[0].legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert sorted(texts) == sorted([*references, "1 digit", *map(", ".join, labels[1:])])
    assert legend.get_window_extent().x0 >= axes.get_window_extent().x1, "no line lies under it"
    looks = plots.styles([*labels, *(f"row {number}" for number in range(12))])
    seen = [(look["color"], look["linestyle"], look["marker"]) for look in looks.values()]
    assert len(set(seen)) == len(seen)
    by_digits = {label: looks[label]["color"] for label in labels}
    assert by_digits["2 digits", "joint"] == by_digits["2 digits", "marginal"] != by_digits["4 digits", "joint"]
    by_target = {label: looks[label]["linestyle"] for label in labels}
    assert by_target["2 digits", "joint"] == by_target["4 digits", "joint"] != by_target["2 digits", "marginal"]
    assert by_target["1 digit"] == "-"


def job_row(name, verb="sample", seed=0, history=None, **metrics):
    made = {"commit": "0123456789ab", "versions": {"jax": "1.2"}, "device_kind": "cpu", "device_count": 2}
    extra = {"history": history, "config": {"objective": {"name": "nelbo"}}} if history else {}
    return row(name, seed, **metrics) | {"verb": verb, "job": f"{verb}-{name}"} | made | extra


MODULE = SimpleNamespace(
    TABLE=dict(
        title="A table",
        columns=(("perplexity", "perplexity", ".2f"),),
        published={"MDLM, 4 steps": {"perplexity": 23.21}},
        figures=(("withdrawn", {"AR": "<= 16"}),),
        comparable=("paper",),
        tolerance={"perplexity": 1.0},
        notes="Some notes.",
        plots=(dict(name="quality", x="evaluations", y="perplexity", title="t", xlabel="x", ylabel="y"),),
    ),
    rows=lambda config: [
        dict(name="AR", overrides={}, verbs=("sample",)),
        dict(name="hidden", overrides={}, verbs=(), shown=False),
        dict(name="MDLM, 2 steps", overrides={}, verbs=("sample",), curve="ancestral"),
        dict(name="MDLM, 4 steps", overrides={}, verbs=("sample",), curve="ancestral"),
    ],
)
RESULTS = [
    job_row("AR", "train", history=HISTORY, bytes_per_token=2.0, validation_bytes_per_token=2.0),
    job_row("AR", perplexity=17.0, evaluations=8.0),
    job_row("MDLM, 4 steps", perplexity=23.0, evaluations=4.0),
    job_row("MDLM, 4 steps", seed=1, perplexity=24.0, evaluations=4.0),
]


@pytest.mark.parametrize(("variant", "difference"), [("paper", True), ("local", False)])
def test_a_table_with_plots_and_samples(variant, difference, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(verb, "PUBLISHED", tmp_path / "beside")
    config = ConfigDict(dict(table="mine", variant=variant))
    text = "\n".join(["one"]) + verb.SEPARATOR + "two" + verb.SEPARATOR + "three"
    folder = tmp_path / "jobs" / "sample-AR"
    folder.mkdir(parents=True)
    (folder / "samples.txt").write_text(text)
    verb.write(MODULE, config, RESULTS, tmp_path, publish=True)
    made = tmp_path / "tables" / f"mine.{variant}"
    written = (made / "table.md").read_text()
    assert "# A table" in written and "Some notes." in written and "2 seed(s)" in written
    assert f"configs/mine.py:{variant}" in written and "0123456789ab on 2 x cpu (jax 1.2)" in written
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in written.splitlines() if line[:1] == "|"]
    error = statistics.stdev([23.0, 24.0]) / math.sqrt(2)
    last = ["MDLM, 4 steps", "", f"23.50 ± {error:.2f}", "23.21", *(["+0.29 (within 1)"] if difference else [])]
    assert lines[2:] == [
        ["AR", "<= 16", "17.00", *[""] * (len(last) - 3)],
        ["MDLM, 2 steps", *[""] * (len(last) - 1)],
        last,
    ]
    assert "hidden" not in written
    for name in ("loss.png", "quality.png"):
        picture(made / name)
        assert f"]({name})" in written
        assert (tmp_path / "beside" / "tables" / f"mine.{variant}.{name}").read_bytes() == (made / name).read_bytes()
    samples = (made / "samples.md").read_text()
    assert "## AR, seed 0" in samples and "one" in samples and "two" in samples and "three" not in samples
    published = (tmp_path / "beside" / "tables" / f"mine.{variant}.md").read_text()
    assert f"](mine.{variant}.quality.png)" in published
    assert "17.00" in capsys.readouterr().out

    # From the committed rows alone comes the same table.
    other = tmp_path / "other"
    verb.regenerate(MODULE, config, other, committed=True, publish=False)
    assert (other / "tables" / f"mine.{variant}" / "table.md").read_text() == written
    with pytest.raises(ValueError, match=r"table: no rows in .*launch\.py run"):
        verb.regenerate(MODULE, ConfigDict(dict(table="none", variant=variant)), other, committed=True, publish=False)


def test_every_training_has_its_own_curve(tmp_path, monkeypatch):
    """Also those of rows whose names begin alike, and of several seeds."""
    seen = {}
    monkeypatch.setattr(verb.plots, "loss_curves", lambda path, title, runs, y, log_y: seen.update(runs, y=y))
    names = ("AR", "MDLM, cosine", "MDLM, linear")
    sizes = dict(bytes_per_token=2.0, validation_bytes_per_token=4.0)
    trained = [job_row(name, "train", seed, HISTORY, **sizes) for name in names for seed in (0, 1)]
    verb.draw(MODULE, ConfigDict(dict(table="mine", variant="paper")), trained, tmp_path)
    assert seen.pop("y") == "objective, bits per byte"
    assert {name: len(runs) for name, runs in seen.items()} == dict.fromkeys(names, 2)
    last = seen["AR"][0][1]
    assert last == {
        "step": 10,
        "loss": pytest.approx(1 / math.log(2)),
        "validation_loss": pytest.approx(2.1 / 4 / math.log(2)),
    }
    # A predictor's loss is no text's, and stands in a plot of its own.
    seen.clear()
    asked = job_row("predictor", "train", 0, HISTORY, **sizes)
    asked["config"] = {"objective": {"name": "errors"}}
    (path,) = verb.draw(MODULE, ConfigDict(dict(table="mine", variant="paper")), [asked], tmp_path)
    assert path.name == "predictors.png" and seen == {"predictor": [HISTORY], "y": "loss (nats)"}
    without = [job_row("AR", "train", 0, HISTORY, bytes_per_token=0.0, validation_bytes_per_token=0.0)]
    verb.draw(MODULE, ConfigDict(dict(table="mine", variant="paper")), without, tmp_path)
    assert seen["y"] == "objective, bits per token"


def test_a_plot_of_named_rows_at_named_places(tmp_path, drawn):
    """A bound above and a number that is none below it, against the number of digits."""
    places = (("MDLM", 1), ("Prime, 2 digits", 2), ("not run", 4))
    plot = dict(
        name="digits",
        title="t",
        xlabel="digits",
        ylabel="nats",
        series=(
            (("trained on marginal", "bound"), "nats", places),
            (("trained on marginal", "joint_ce"), "joint_ce/nats", places),
            ("nobody", "other", places),
        ),
        references=(("AR", "nats", "AR"), ("not run", "nats", "not run")),
        levels={"entropy": 1.5},
    )
    module = SimpleNamespace(TABLE=dict(plots=(plot,)), rows=MODULE.rows)
    results = [
        job_row("AR", nats=2.0),
        job_row("MDLM", nats=4.0, **{"joint_ce/nats": 4.0}),
        job_row("Prime, 2 digits", nats=5.0, **{"joint_ce/nats": 3.0}),
        job_row("Prime, 2 digits", seed=1, nats=7.0, **{"joint_ce/nats": 3.0}),
    ]
    paths = verb.draw(module, ConfigDict(dict(table="mine", variant="paper")), results, tmp_path)
    assert [path.name for path in paths] == ["digits.png"]
    axes = drawn[0].axes[0]
    bound, below = (container.lines[0] for container in axes.containers)
    assert bound.get_xydata().tolist() == [[1, 4], [2, 6]] and below.get_xydata().tolist() == [[1, 4], [2, 3]]
    assert axes.containers[0].lines[2][0].get_segments()[1][:, 1].tolist() == [5, 7]
    assert (bound.get_linestyle(), below.get_linestyle()) == ("-", "--") and bound.get_color() == below.get_color()
    labels = ["AR", "entropy", "trained on marginal, bound", "trained on marginal, joint_ce"]
    assert axes.get_legend_handles_labels()[1] == labels
    heights = [float(line.get_ydata()[0]) for line in axes.lines if line.get_label() in ("AR", "entropy")]
    assert heights == [2.0, 1.5]


def test_a_job_is_described_by_its_metrics_and_samples(tmp_path):
    (tmp_path / "jobs" / "sample-AR").mkdir(parents=True)
    (tmp_path / "jobs" / "sample-AR" / "samples.txt").write_text("a text\n")
    said = verb.describe(job_row("AR", perplexity=17.123456789, samples=8), tmp_path)
    assert "a text" in said and "17.1235" in said and "samples" in said
    assert "a text" not in verb.describe(job_row("AR", "evaluate", perplexity=1.0), tmp_path)
