"""Plots: curves of all runs, error bars of all points, and distinct lines."""

from diffusion.report import plots

HISTORY = [{"step": 0, "loss": 3.0}, {"step": 10, "loss": 2.0, "validation_loss": 2.1}]


def test_loss_curves_show_every_run_in_the_color_of_its_row(tmp_path, figures, pixels):
    # One run stopped before its first validation, and one has no record.
    runs = {"AR": [HISTORY, HISTORY[:1]], "MDLM": [HISTORY], "none": [[]]}
    plots.loss_curves(tmp_path / "loss.png", "title", runs, "bits per byte")
    pixels(tmp_path / "loss.png")
    axes = figures[0].axes[0]
    data = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    whole = [([0, 10], [3.0, 2.0]), ([10], [2.1])]
    assert data == [*whole, ([0], [3.0]), *whole]
    colors = [line.get_color() for line in axes.lines]
    assert len(set(colors[:3])) == len(set(colors[3:])) == 1 and colors[0] != colors[3]
    assert axes.get_legend_handles_labels()[1] == ["AR", "MDLM"]
    assert axes.get_ylabel() == "bits per byte"


def test_lines_show_points_errors_and_references(tmp_path, figures, pixels):
    curve = [(8, 30.0, 1.0), (2, 90.0, 3.0)]
    plots.lines(tmp_path / "a.png", "t", {"ancestral": curve}, "NFE", "perplexity", log_y=True, references={"AR": 20.0})
    pixels(tmp_path / "a.png")
    axes = figures[0].axes[0]
    points, _, (bars,) = axes.containers[0]
    assert points.get_xydata().tolist() == [[2, 90], [8, 30]], "in the order of x"
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [[87, 93], [29, 31]]
    assert set(axes.lines[-1].get_ydata()) == {20.0} and axes.lines[-1].get_label() == "AR"
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "8"]
    assert axes.get_legend() and not figures[0].legends
    plots.lines(tmp_path / "b.png", "t", {"ancestral": curve}, "NFE", "perplexity", log_x=False)
    assert figures[1].axes[0].get_xscale() == figures[1].axes[0].get_yscale() == "linear"
    # An axis that is not a count has round numbers.
    plots.lines(tmp_path / "c.png", "t", {"ancestral": [(3.917, 3.0, 0.1), (31.21, 2.0, 0.1)]}, "GFLOP", "perplexity")
    axis = figures[2].axes[0].xaxis
    labels = [label.get_text() for which in (False, True) for label in axis.get_ticklabels(minor=which)]
    assert axis.get_scale() == "log" and {"5", "10", "20"} <= set(labels) and "3.917" not in labels
    assert [axis.get_major_formatter()(value, 0) for value in (0.2025, 0.3000000001)] == ["0.2025", "0.3"]


def test_many_lines_are_distinct_and_their_legend_is_outside_the_axes(tmp_path, figures, pixels):
    labels = ["1 digit", *[(f"{digits} digits", target) for digits in (2, 4) for target in ("joint", "marginal")]]
    curves = {label: [(8, 30.0 + number, 1.0)] for number, label in enumerate(labels)}
    references = {f"row {number}": 20.0 + number for number in range(9)}
    plots.lines(tmp_path / "many.png", "t", curves, "x", "y", references=references)
    pixels(tmp_path / "many.png")
    axes, (legend,) = figures[0].axes[0], figures[0].legends
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
