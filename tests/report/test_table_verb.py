"""The verb `table`: its text, its plots, and its descriptions of jobs."""

import math
import statistics

import pytest
from ml_collections import ConfigDict

from experiments import curves
from experiments import table as verb
from tests.checks import refused
from tests.table_files import table_file

HISTORY = [{"step": 0, "loss": 3.0}, {"step": 10, "loss": 2.0, "validation_loss": 2.1}]


PROVENANCE = {"commit": "0123456789ab", "versions": {"jax": "1.2"}, "device_kind": "cpu", "device_count": 2}


def job_row(name, verb="sample", seed=0, history=None, objective="nelbo", **metrics):
    config = {"objective": {"name": objective}, "data": {"path": ""}}
    measured = {"row": name, "seed": seed, "metrics": metrics, "verb": verb, "job": f"{verb}-{name}", "config": config}
    return measured | PROVENANCE | ({"history": history} if history else {})


MODULE = table_file(
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
def test_a_table_with_plots_and_samples(variant, difference, tmp_path, monkeypatch, capsys, pixels):
    monkeypatch.setattr(verb, "PUBLISHED", tmp_path / "published")
    config = ConfigDict(dict(table="mine", variant=variant, seeds=(0,), data=dict(path="")))
    folder = tmp_path / "jobs" / "sample-AR"
    folder.mkdir(parents=True)
    (folder / "samples.txt").write_text(verb.SEPARATOR.join(["one", "two", "three"]))
    verb.write(MODULE, config, RESULTS, tmp_path, publish=True)
    folder = tmp_path / "tables" / f"mine.{variant}"
    written = (folder / "table.md").read_text()
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
    published = tmp_path / "published" / "tables"
    for name in ("loss.png", "quality.png"):
        pixels(folder / name)
        assert f"]({name})" in written
        assert (published / f"mine.{variant}.{name}").read_bytes() == (folder / name).read_bytes()
    samples = (folder / "samples.md").read_text()
    assert "## AR, seed 0" in samples and "one" in samples and "two" in samples and "three" not in samples
    assert f"](mine.{variant}.quality.png)" in (published / f"mine.{variant}.md").read_text()
    assert "17.00" in capsys.readouterr().out

    # The committed rows alone give the same table.
    other = tmp_path / "other"
    verb.regenerate(MODULE, config, other, committed=True, publish=False)
    assert (other / "tables" / f"mine.{variant}" / "table.md").read_text() == written
    config.table = "none"
    with refused(r"table: no rows in .*launch\.py run"):
        verb.regenerate(MODULE, config, other, committed=True, publish=False)


def test_the_command_of_a_table_is_the_one_that_was_given():
    """It has fields of the config, but for paths, and the number of trainings that were one program."""
    usual = dict(table="mine", variant="paper", seeds=(0,), data=dict(path="", source="web"), train=dict(steps=9))
    given = ConfigDict(usual | {"data": {"path": "mine", "source": "my files"}, "train": {"steps": 500}})
    module = table_file(**vars(MODULE) | {"get_config": lambda variant: ConfigDict(usual)})
    rows = [*RESULTS[1:], RESULTS[0] | {"population": 4}]
    text, _ = verb.render(module, given, rows)
    words = "'--config.data.source=my files' --config.train.steps=500 --population=4"
    assert f'configs/mine.py:paper --config.seeds="(0, 1)" {words}`' in text


def draw(rows, folder, module=MODULE):
    """Return the names of the plots of these rows."""
    paths = curves.draw(module, ConfigDict(dict(table="mine", variant="paper")), rows, folder)
    return [path.name for path in paths]


def test_rows_of_different_data_are_named():
    rows = [row | {"data": data} for row, data in zip(RESULTS, "aaab", strict=True)]
    assert verb.mixed_data(RESULTS) == ""
    assert verb.mixed_data(rows) == " The data of 'AR' and 'MDLM, 4 steps' differ; these rows cannot be compared."
    other = rows[-1] | {"config": {"data": {"path": "other"}}}
    assert verb.mixed_data([*rows[:-1], other]) == "", "another source is no change of a source"


def test_every_training_has_its_own_curve(tmp_path, monkeypatch):
    """This includes rows whose names begin equally, and several seeds."""
    seen = {}
    monkeypatch.setattr(curves.plots, "loss_curves", lambda path, title, runs, y, log_y: seen.update(runs, y=y))
    names = ("AR", "MDLM, cosine", "MDLM, linear")
    sizes = dict(bytes_per_token=2.0, validation_bytes_per_token=4.0)
    draw([job_row(name, "train", seed, HISTORY, **sizes) for name in names for seed in (0, 1)], tmp_path)
    assert seen.pop("y") == "objective, bits per byte"
    assert {name: len(runs) for name, runs in seen.items()} == dict.fromkeys(names, 2)
    bits = {"step": 10, "loss": 1 / math.log(2), "validation_loss": 2.1 / 4 / math.log(2)}
    assert seen["AR"][0][1] == pytest.approx(bits)
    # The loss of a predictor has a different unit, and therefore a separate plot.
    seen.clear()
    assert draw([job_row("predictor", "train", 0, HISTORY, "errors", **sizes)], tmp_path) == ["predictors.png"]
    assert seen == {"predictor": [HISTORY], "y": "loss (nats)"}
    draw([job_row("AR", "train", 0, HISTORY, bytes_per_token=0.0, validation_bytes_per_token=0.0)], tmp_path)
    assert seen["y"] == "objective, bits per token"


def test_plot_of_named_rows_at_named_positions(tmp_path, figures):
    """A bound, and a lower value that is not a bound, against the number of sub-tokens."""
    places = (("MDLM", 1), ("Prime, 2 digits", 2), ("not run", 4))
    plot = dict(name="digits", title="t", xlabel="digits", ylabel="nats", levels={"entropy": 1.5}) | dict(
        series=(
            (("trained on marginal", "bound"), "nats", places),
            (("trained on marginal", "joint_ce"), "joint_ce/nats", places),
            ("nobody", "other", places),
        ),
        references=(("AR", "nats", "AR"), ("not run", "nats", "not run")),
    )
    module = table_file(TABLE=dict(plots=(plot,)), rows=MODULE.rows)
    results = [
        job_row("AR", nats=2.0),
        job_row("MDLM", nats=4.0, **{"joint_ce/nats": 4.0}),
        job_row("Prime, 2 digits", nats=5.0, **{"joint_ce/nats": 3.0}),
        job_row("Prime, 2 digits", seed=1, nats=7.0, **{"joint_ce/nats": 3.0}),
    ]
    assert draw(results, tmp_path, module) == ["digits.png"]
    axes = figures[0].axes[0]
    bound, below = (container.lines[0] for container in axes.containers)
    assert bound.get_xydata().tolist() == [[1, 4], [2, 6]] and below.get_xydata().tolist() == [[1, 4], [2, 3]]
    assert axes.containers[0].lines[2][0].get_segments()[1][:, 1].tolist() == [5, 7]
    assert (bound.get_linestyle(), below.get_linestyle()) == ("-", "--") and bound.get_color() == below.get_color()
    labels = ["AR", "entropy", "trained on marginal, bound", "trained on marginal, joint_ce"]
    assert axes.get_legend_handles_labels()[1] == labels
    heights = [float(line.get_ydata()[0]) for line in axes.lines if line.get_label() in ("AR", "entropy")]
    assert heights == [2.0, 1.5]


def test_description_of_a_job_has_its_metrics_and_samples(tmp_path):
    (tmp_path / "jobs" / "sample-AR").mkdir(parents=True)
    (tmp_path / "jobs" / "sample-AR" / "samples.txt").write_text("a text\n")
    message = verb.describe(job_row("AR", perplexity=17.123456789, samples=8), tmp_path)
    assert "a text" in message and "17.1235" in message and "samples" in message
    assert "a text" not in verb.describe(job_row("AR", "evaluate", perplexity=1.0), tmp_path)


def test_row_without_a_line_is_a_level_of_a_plot():
    """Beam search has no steps and is a level in a plot against steps; other rows need a position."""
    selected = [
        dict(name="AR", curves={"pairs": None}),
        dict(name="base, 5 steps", curves={"pairs": "base"}),
        dict(name="base, not run", curves={"pairs": "base"}),
        dict(name="elsewhere", curves={"others": "base"}),
        dict(name="unnamed"),
    ]
    results = [job_row("AR", bleu=30.0), job_row("base, 5 steps", bleu=20.0, steps=5.0)]
    results += [job_row("elsewhere", bleu=1.0, steps=1.0), job_row("unnamed", bleu=10.0)]
    lines, levels = curves.trade_off(selected, results, dict(name="pairs", x="steps", y="bleu"))
    assert lines == {"base": [(5.0, 20.0, 0.0)]} and levels == {"AR": 30.0}


def test_course_of_a_sampler_is_the_mean_over_seeds_per_step():
    first, second = ([{"step": 1, "bleu": 10.0 + seed}, {"step": 2, "bleu": 30.0, "changed": 0.5}] for seed in (0, 2))
    results = [job_row("base, 2 steps", seed=seed) | {"by_step": trace} for seed, trace in enumerate((first, second))]
    results.append(job_row("not watched"))
    selected = {"base": "base, 2 steps", "other": "not watched"}
    assert curves.course(results, dict(course=selected, y="bleu")) == {"base": [(1, 11.0, 1.0), (2, 30.0, 0.0)]}
    assert curves.course(results, dict(course=selected, y="changed")) == {"base": [(2, 0.5, 0.0)]}
