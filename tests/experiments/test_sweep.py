"""Sweeps: their rows and jobs, what is refused, their tables and plots, and how many programs they compile."""

import json
from types import ModuleType

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from configs import quickstart
from configs.base import defaults
from configs.recipes.small import tiny
from experiments import compiled, curves, pivots, run, settings, sweep, table
from experiments.expansion import common_name
from experiments.plan import plan
from tests.checks import refused
from tests.experiments.conftest import one_line
from tests.small_configs import CAUSAL, ROWS, judged_config, small_config

DEBUG = "--config=configs/quickstart.py:debug"
RATE, STEPS = "optimizer.learning_rate", "sample.steps"
RATES = {RATE: (1e-3, 3e-3)}
COLUMNS = (("bits_per_byte", "bits/byte", ".2f"), ("entropy", "entropy", ".2f"))


def module_of(rows=ROWS, **fields):
    """Return a table with these rows."""
    module = ModuleType("test")
    module.__dict__["TABLE"] = dict(title="Test", columns=COLUMNS, published={}, notes="") | fields
    module.__dict__["rows"] = lambda config: rows
    module.__dict__["get_config"] = lambda variant: tiny(defaults("test", variant))
    return module


def swept(rows=ROWS, words=(), config=None, pivot=(), **fields):
    """Return the swept table of these rows, and its config."""
    config = config or judged_config()
    return sweep.swept(module_of(rows, **fields), config, words, pivot), config


def jobs_of(module, config):
    """Return the jobs of a table by verb and row; a row has one seed."""
    return {(job.verb, job.row): job for job in plan(list(module.rows(config)), config)}


def names_of(module, config):
    """Return the names of the rows that a table shows."""
    return [row["name"] for row in module.rows(config) if row.get("shown", True)]


def results_of(module, config, metric):
    """Return results of the rows for three seeds, with a metric that `metric` gives for a point and a seed."""
    rows = [row for row in module.rows(config) if row.get("point")]
    return [
        dict(row=row["name"], seed=seed, verb="evaluate", metrics={"bits_per_byte": metric(row["point"], seed)})
        for row in rows
        for seed in range(3)
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--sweep.optimizer.rate=1,2"], ["sweep.optimizer.rate: no such field", "configs/base.py"]),
        (["--sweep.optimizer=1,2"], ["sweep.optimizer: is not one number"]),
        (["--sweep.sample.warp=1,2"], ["sweep.sample.warp: is not one number"]),
        (["--sweep.train.steps=1,many"], ["sweep.train.steps: 'many' is not of the type", "int"]),
        (["--sweep.train.steps=1.5"], ["sweep.train.steps: '1.5'"]),
        (["--sweep.model.causal=perhaps"], ["sweep.model.causal: 'perhaps'", "bool"]),
        (["--sweep.train.steps"], ["sweep.train.steps: has no values"]),
        (["--sweep.train.steps=1", "--sweep.train.steps=2"], ["sweep.train.steps: is given twice"]),
        (["--sweep.train.steps=4,4"], ["sweep.train.steps: must have values that differ"]),
        (["--sweep.seed=1"], ["sweep.seed: ", "--sweep.seeds=3"]),
        (["--sweep.seeds=0"], ["sweep.seeds: must be the number of seeds"]),
        (["--sweep.train.log_every=1,2"], ["sweep.train.log_every: no row of quickstart reads"]),
        (["--sweep.optimizer.learning_rate=-1,1"], ["optimizer.learning_rate: must be positive"]),
        (["--sweep.optimizer.learning_rate=1", "--pivot=bits:min"], ["--pivot: 'bits:min'", "bits_per_byte"]),
        (["--pivot=entropy:max", "--sweep.seeds=2"], ["--pivot: ", "--sweep.FIELD"]),
    ],
    ids=lambda value: " ".join(value)[:60] if value[0].startswith("--") else None,
)
def test_errors_are_one_line(cli, words, expected):
    one_line(cli("plan", DEBUG, *words), "launch.py: ", *expected)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["evaluate", DEBUG], "not with evaluate"),
        (["run", "--jobs=jobs.jsonl"], "not with --jobs"),
        (["table", DEBUG, "--results"], "goes without --results"),
        (["run", DEBUG, "--publish"], "goes without --publish"),
    ],
)
def test_a_sweep_goes_with_runs_plans_and_tables_alone(cli, words, expected):
    one_line(cli(*words, "--sweep.train.steps=1,2"), "--sweep: ", expected)


def test_words_of_the_command_line_are_a_sweep(cli):
    status, out, err = cli("plan", DEBUG, "--sweep.optimizer.learning_rate=1e-3,2e-3", "--sweep.seeds=2")
    assert status == 0, err
    jobs = [job for job in map(json.loads, out.splitlines()) if (job["verb"], job["row"][:4]) == ("evaluate", "MDLM")]
    assert [(job["config"]["optimizer"]["learning_rate"], job["seed"]) for job in jobs] == [
        (rate, seed) for rate in (1e-3, 2e-3) for seed in (0, 1)
    ]


def test_rows_that_read_a_field_are_repeated_and_their_judge_is_not():
    module, config = swept(sweep=RATES)
    assert names_of(module, config)[:3] == ["Text", "AR, learning_rate 0.001", "AR, learning_rate 0.003"]
    jobs = jobs_of(module, config)
    judges = {job.needs["scorer"] for job in jobs.values() if job.verb == "sample"}
    plain = jobs_of(module_of(), judged_config())
    assert judges == {plain["train", "AR"].id}
    rates = {job.config["optimizer"]["learning_rate"] for job in jobs.values() if job.verb == "evaluate"}
    assert rates == set(RATES[RATE])


def test_an_axis_of_samples_multiplies_no_training_and_no_row_that_does_not_read_it():
    plain = jobs_of(module_of(), judged_config())
    module, config = swept(sweep={STEPS: (2, 4, 8)})
    jobs = jobs_of(module, config)

    def ids(jobs, verb):
        return {job.id for (each, _), job in jobs.items() if each == verb}

    assert ids(jobs, "train") == ids(plain, "train")
    names = names_of(module, config)
    assert "Text" in names and "AR" in names and sum(name.endswith(", steps 4") for name in names) == 2


def test_rows_that_differ_in_swept_fields_alone_become_one():
    config = quickstart.get_config("debug")
    names = names_of(sweep.swept(quickstart, config, [f"{STEPS}=3,5"]), config)
    assert names[3:] == [f"MDLM, {policy}, steps {steps}" for policy in ("ancestral", "confidence") for steps in (3, 5)]
    assert common_name(["MDLM, 12 steps", "MDLM, 16 steps"]) == "MDLM" and common_name(["a 1", "a 2"]) == "a 1"


def test_a_row_that_starts_from_a_swept_row_starts_at_the_same_values():
    rows = [*ROWS, dict(name="More", overrides={"start": "MDLM, 8 steps", "train.steps": 9}, verbs=("evaluate",))]
    module, config = swept(rows, sweep=RATES | {STEPS: (2, 4)})
    jobs = {job.id: job for job in plan(list(module.rows(config)), config)}
    found = [job for job in jobs.values() if job.verb == "train" and "start" in job.needs]
    assert len(found) == 2
    for job in found:
        start = jobs[job.needs["start"]]
        assert start.config["optimizer"]["learning_rate"] == job.config["optimizer"]["learning_rate"]


def test_rows_that_start_from_each_other_are_refused_as_without_a_sweep():
    rows = [dict(name=name, overrides={"start": other}, verbs=("evaluate",)) for name, other in ("ab", "ba")]
    module, config = swept(rows, config=small_config(), sweep=RATES)
    with refused("start: .* starts from itself"):
        jobs_of(module, config)


def test_the_command_line_has_priority_over_the_table():
    module, config = swept(words=[f"{RATE}=0.5", "seeds=2"], sweep=RATES | {"seeds": 3})
    assert [axis.values for axis in module.TABLE["axes"]] == [(0.5,)] and config.seeds == (0, 1)
    _, config = swept(sweep={"seeds": 3})
    assert config.seeds == (0, 1, 2)
    given = judged_config()
    given.seeds = (7,)
    assert swept(config=given, sweep={"seeds": 3})[1].seeds == (7,), "--config.seeds of the command line"


def test_values_of_a_table_have_the_type_of_the_field():
    assert swept(sweep={RATE: (1, 2)})[0].TABLE["axes"][0].values == (1.0, 2.0)
    for field, values, message in (
        ("train.steps", (1.5,), "1.5 is not of the type"),
        ("train.steps", (True,), "True is not of the type"),
        ("sample.policy", "random_order", "must be a tuple of values"),
        (RATE, (), "must have values"),
    ):
        with refused(f"sweep.{field}: {message}"):
            swept(sweep={field: values})


def test_axes_have_the_shortest_name_that_differs():
    words = ["data.seed=1,2", "sample.remask.temperature=1,2", "sample.temperature=1,2"]
    axes = sweep.named({word.partition("=")[0]: (1, 2) for word in words})
    assert [axis.name for axis in axes] == ["seed", "remask.temperature", "sample.temperature"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"columns": (("config.optimizer.rate", "rate", "g"),)}, "columns: config.optimizer.rate: no such field"),
        ({"columns": (("config.mesh.data", "mesh", "g"),)}, "columns: config.mesh.data: no row reads"),
        (
            {"plots": (dict(name="cost", x="config.sample.stepz", y="entropy"),)},
            "plot 'cost': config.sample.stepz: no such",
        ),
        ({"plots": (dict(name="cost", x="config.sample.policy", y="entropy"),)}, "an axis needs numbers"),
        ({"plots": (dict(name="cost", x=f"config.{STEPS}", y="entropy", by=("config.a",)),)}, "config.a: no such"),
    ],
)
def test_columns_and_plots_of_fields_that_no_row_has_are_refused(fields, message, tmp_path):
    module = module_of(**fields)
    with refused(message):
        run.run_table(module, judged_config(), tmp_path, publish=False)
    with refused(message):
        table.regenerate(module, judged_config(), tmp_path, False, False)
    assert not list(tmp_path.iterdir())


def test_fields_of_rows_are_columns_though_the_job_is_that_of_another_row():
    module = module_of(columns=((f"config.{STEPS}", "steps", "g"), *COLUMNS))
    config = judged_config()
    results = [dict(row=row["name"], metrics={}, config={"sample": {"steps": 99}}) for row in ROWS]
    shown = {each["row"]: each["metrics"] for each in settings.with_settings(module, config, results)}
    assert shown["MDLM, 8 steps"] == {f"config.{STEPS}": 8} and not shown["Text"] and not shown["AR"]


def test_pivot_tables_and_the_best_row_along_every_axis_with_its_interval():
    rows = [dict(name="MDLM", overrides={}, verbs=("evaluate",))]
    axes = RATES | {"train.batch": (8, 16)}
    module, config = swept(rows, sweep=axes, config=small_config(), pivots=(("bits_per_byte", "min"),))
    results = results_of(module, config, lambda point, seed: 1000 * point[RATE] + point["train.batch"] + seed)
    report = pivots.report(module, config, results)
    lines = {tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in report.splitlines() if "|" in line}
    # Of three seeds 9, 10, 11 the error is 1 / sqrt(3), and the interval 4.30 times as wide.
    assert ("0.001", "10.00 ± 0.58", "18.00 ± 0.58") in lines and ("0.003", "12.00 ± 0.58", "20.00 ± 0.58") in lines
    assert ("MDLM, batch 8", "learning_rate", "0.001", "10.00", "[7.52, 12.48]", "3") in lines
    assert ("MDLM, learning_rate 0.003", "batch", "8", "12.00", "[9.52, 14.48]", "3") in lines
    module.TABLE["pivots"] = (("bits_per_byte", "max"),)
    report = pivots.report(module, config, results)
    assert "highest at" in report and "20.00" in report
    module.TABLE["pivots"] = (("entropy", "max"),)
    with refused("pivot: no row of the sweep has entropy:max; pass one of bits_per_byte"):
        pivots.report(module, config, results)


def test_rows_with_one_axis_are_columns_of_one_pivot_table():
    rows = [dict(name=name, overrides=fields, verbs=("evaluate",)) for name, fields in (("AR", CAUSAL), ("MDLM", {}))]
    module, config = swept(rows, sweep=RATES, config=small_config())
    results = results_of(module, config, lambda point, seed: 1000 * point[RATE])
    assert "| learning_rate   | AR   | MDLM   |" in pivots.report(module, config, results)
    shown = settings.with_settings(module, config, results)
    (plot,) = pivots.plots(module, config, shown)
    lines = curves.by_settings(list(module.rows(config)), shown, plot)
    assert list(lines) == [("AR",), ("MDLM",)]
    for points in lines.values():
        assert points == [pytest.approx((rate, 1000 * rate, 0.0)) for rate in RATES[RATE]]


def test_a_plot_has_a_line_for_every_value_of_a_field():
    plot = dict(name="cost", x=f"config.{STEPS}", y="entropy", by=("config.model.causal",))
    module, config = module_of(plots=(plot,)), judged_config()
    results = [dict(row=row["name"], metrics={"entropy": 2.0}) for row in ROWS]
    shown = settings.with_settings(module, config, results)
    assert curves.by_settings(ROWS, shown, plot) == {("causal False",): [(4, 2.0, 0.0), (8, 2.0, 0.0)]}


@pytest.fixture
def empty_cache(tmp_path):
    """Use a cache of compiled programs without any."""
    before = jax.config.jax_compilation_cache_dir
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "compiled"))
    yield
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", before)


def test_learning_rates_share_one_training_step_and_numbers_of_steps_one_sampler(empty_cache, fields, tmp_path):
    """Of every program one job compiles it and the others read it; the table has the values of the axes."""
    rows = [dict(name="MDLM", overrides={}, verbs=("sample",))]
    config = small_config(**{name.replace(".", "__"): value for name, value in fields.items()})
    module, config = swept(rows, config=config, sweep=RATES | {STEPS: (2, 3)})
    with compiled.counted(long=0) as programs:
        run.run_table(module, config, tmp_path, publish=False)
    for name, jobs in {"step": 2, "init": 2, "score": 2, "draw": 4}.items():
        assert (programs.compiled[name], programs.read[name]) == (1, jobs - 1), name
    text = (tmp_path / "tables" / "test.debug" / "table.md").read_text()
    assert "| MDLM, learning_rate 0.003, steps 3 | 0.003" in text and "over learning_rate" in text
    for name in ("learning_rate", "steps"):
        assert list((tmp_path / "tables" / "test.debug").glob(f"*-{name}.png")), name
