"""The page of `launch.py report`: valid HTML that loads nothing, with all that the work directory holds."""

import base64
import io
import json
from html.parser import HTMLParser

import jax
import matplotlib.image
import numpy as np
import pytest

from diffusion.report.charts import MOST_POINTS, loss_chart, thinned, ticks
from diffusion.report.markup import from_markdown
from diffusion.storage import atomic_write
from experiments import report
from tests.checks import refused
from tests.experiments.conftest import one_line
from tests.job_folders import MODULE, begin, finish, small_table

VOID = {"meta", "img", "br", "link", "input"}
SHAPES = {"line", "polyline", "circle"}  # of SVG; these may close themselves


class Page(HTMLParser):
    """A parser that fails for tags that are not closed in order, and collects elements and texts."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in SHAPES
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def every(self, tag, name):
        """Return an attribute of all elements with it."""
        return [attrs[name] for found, attrs in self.found if found == tag and name in attrs]


@pytest.fixture
def workdir(tmp_path):
    """Return a work directory with a table of two seeds of which all is done but what needs a failed training."""
    config, jobs = small_table()
    for job in jobs:
        if job.seed == 0 or job.row == "AR":
            finish(job, tmp_path)
    failed = next(job for job in jobs if job.verb == "train" and not job.done(tmp_path))
    begin(failed, tmp_path)
    record = {"error": "training diverged & <b>stopped</b>", "host": "node7", "time": 0.0}
    atomic_write(failed.folder(tmp_path) / "failed.json", json.dumps(record))
    command = {"row": failed.row, "seed": 1, "command": "launch.py run --config=x.py", "host": "node7"}
    atomic_write(failed.folder(tmp_path) / "job.json", json.dumps(command))
    drawn = next(job for job in jobs if job.verb == "sample" and job.done(tmp_path))
    matplotlib.image.imsave(drawn.folder(tmp_path) / "samples.png", np.zeros((4, 6, 3)))
    return config, jobs, tmp_path


def page_of(path):
    """Return the parsed page, which must load nothing and run no script."""
    text = path.read_text()
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    tags = {tag for tag, _ in page.found}
    assert not tags & {"script", "link", "iframe", "b"}
    assert all(source.startswith("data:image/") for source in page.every("img", "src"))
    links = page.every("a", "href")
    assert links and {link.removeprefix("#") for link in links} <= set(page.every("h2", "id"))
    assert "://" not in text and "url(" not in text
    return page


def test_the_page_of_a_config_holds_everything(workdir):
    config, jobs, folder = workdir
    report.run(MODULE, config, folder)
    page = page_of(folder / "tables" / "test.debug" / "report.html")
    assert page.every("h2", "id") == ["tables", "loss-curves", "samples", "jobs", "provenance"]
    # Warnings come first, and what users or errors wrote is text.
    for text in (
        "train 'MDLM, 4', seed 1 failed: training diverged & <b>stopped</b> (on node7",
        "Not done, of 10 jobs: 2 waiting.",
        "test.debug is a partial table.",
        "A small table (debug)",
        "<script>alert(1)</script> & two",
        "MDLM, 8: sample, seed 1: has not run",
        "python launch.py run --config=x.py",
        "0123456789ab",
        "python 3.11.7, jax 0.10",
        "1 x cpu",
        "node7",
    ):
        assert text in page.text, text
    trainings = [job for job in jobs if job.verb == "train"]
    assert len(page.every("polyline", "points")) == len(trainings) == 4
    assert sum("validation loss 3.2000 at step 10" in text for text in page.texts) == len(trainings)
    assert page.texts.count("seed 1 (failed)") == 1
    images = page.every("img", "src")
    assert len(images) == 3, "the losses, the plot of the table, and a grid of samples"
    for image in images:
        pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(image.partition(",")[2])))
        assert pixels.ndim == 3
    states = [kind for kind in page.every("tr", "class") if kind]
    assert sorted(states) == ["done"] * 7 + ["failed"] + ["waiting"] * 2


@pytest.mark.parametrize(
    "change",
    [{"metrics": None}, {"metrics": {"perplexity": []}}, {"config": {}}, {"history": 7}, {"versions": 1}],
)
def test_a_result_that_lacks_what_is_shown_is_named(change, workdir):
    config, jobs, folder = workdir
    done = next(job for job in jobs if job.done(folder) and job.verb == "train")
    finish(done, folder, **change)
    with refused(rf"results: result\.json of {done.id} is damaged; delete it"):
        report.run(MODULE, config, folder)


def test_an_empty_table_is_shown(workdir):
    _, _, folder = workdir
    atomic_write(folder / "tables" / "empty" / "table.md", "")
    atomic_write(folder / "tables" / "bytes" / "table.md", b"\xff")
    report.run(None, None, folder)
    page_of(folder / "report.html")


def test_the_page_of_a_work_directory_needs_no_config_and_no_device(workdir, succeed, monkeypatch):
    _, jobs, folder = workdir
    folder.rename(folder.with_name("moved"))
    folder.mkdir()
    folder.with_name("moved").rename(folder / "runs")
    for name in ("devices", "local_devices", "device_count", "process_index", "process_count"):
        monkeypatch.setattr(jax, name, lambda *words: pytest.fail("a device is asked for"))
    assert succeed("report")[0].strip().endswith("report.html")
    page = page_of(folder / "runs" / "report.html")
    assert "loss-curves" in page.every("h2", "id") and "tables" not in page.every("h2", "id")
    known = sum((folder / "runs" / "jobs" / job.id).exists() for job in jobs)
    assert len([kind for kind in page.every("tr", "class") if kind]) == known
    assert "8 jobs, 7 done, 1 failed" in succeed("status")[0]


def test_mixed_results_and_old_tables_are_named(workdir):
    config, jobs, folder = workdir
    for job in jobs:
        finish(job, folder)
    report.run(MODULE, config, folder)
    path = folder / "tables" / "test.debug" / "report.html"
    assert "No warnings: every job is done" in page_of(path).text
    sampled = [job for job in jobs if job.verb == "sample"]
    finish(sampled[0], folder, commit="fedcba987654+", device_count=4, data="d2")
    report.run(None, None, folder)
    found = page_of(folder / "report.html").text
    for text in (
        "The results come from several commits: 0123456789ab, 9 jobs; fedcba987654+, 1 job.",
        "The results come from several devices: 1 x cpu, 9 jobs; 4 x cpu, 1 job.",
        "Sources were changed or not in a repository (fedcba987654+)",
        "differ; these rows cannot be compared",
        "test.debug is older than 1 result;",
    ):
        assert text in found, text


def test_a_work_directory_without_jobs_is_refused(cli, tmp_path):
    one_line(cli("report"), "--workdir: ", "holds no jobs")
    assert not (tmp_path / "runs").exists()


def test_markdown_of_tables_becomes_html():
    blocks = ("# A <b> title", "Partial table:", "- one `x`\n- **two**", "| row | n |\n|---|---|\n| A & B | 1 |  |")
    text = "\n\n".join((*blocks, "![q](q.png)\n"))
    html = from_markdown(text, lambda caption, path: f"<i>{caption} {path}</i>")
    parsed = Page(html)
    assert [tag for tag, _ in parsed.found if tag in ("h2", "p", "li", "code", "th", "td", "i")] == (
        ["h2", "p", "li", "code", "li", "th", "th", "td", "td", "td", "i"]
    )
    assert parsed.texts[0] == "A <b> title" and "A & B" in parsed.texts and "<b>two</b>" in html and "q q.png" in html


def test_charts_hold_every_run_and_leave_out_what_is_not_finite():
    records = [{"step": step, "loss": 8.0 - step / 1000} for step in range(2000)]
    records += [{"step": 2000, "loss": float("nan")}, {"step": 2000, "validation_loss": 7.0}]
    parsed = Page(loss_chart({"seed 0": records, "seed <1>": records[:1]}))
    first, second = parsed.every("polyline", "points")
    assert MOST_POINTS <= len(first.split()) <= 1.5 * MOST_POINTS and len(second.split()) == 1
    assert "nan" not in first and "seed 0: validation loss 7.0000 at step 2,000" in parsed.text
    # The loss falls, and y grows downwards; the ends lie within the plot.
    ends = [tuple(map(float, point.split(","))) for point in (first.split()[0], first.split()[-1])]
    assert ends[0][0] < ends[1][0] and ends[0][1] < ends[1][1]
    assert loss_chart({"seed 0": [{"step": 1, "loss": float("inf")}]}) == ""
    # Losses over decades have a logarithmic axis.
    assert " ".join(Page(loss_chart({"x": [{"step": 0, "loss": 1.0}, {"step": 5, "loss": 0.001}]})).texts).startswith(
        "0.001 0.01 0.1 1"
    )


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 800, [0, 200, 400, 600, 800]), (1.9, 2.3, [1.9, 2.0, 2.1, 2.2, 2.3]), (3, 3, [3.0])],
)
def test_ticks_are_round_and_enclose(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_thinned_lines_keep_their_last_point():
    line = [(float(step), 0.0) for step in range(1000)]
    assert thinned(line)[0] == line[0] and thinned(line)[-1] == line[-1] and thinned([]) == []
