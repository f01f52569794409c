"""The table of compiled recipes: which rows it has, what is compiled again, worked numbers of scaling, and its text."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from configs import prime_text, remdm, udlm
from diffusion.report.rows import read_rows
from experiments.benchmarks import compiled_runs, scaling
from experiments.benchmarks.compiled_recipes import Recipe, recipes, representatives, structure, tables, untrained
from experiments.benchmarks.compiled_tables import PLOT, RECORDS, TABLE, name_of, plot, rendered
from experiments.compile import record_path
from experiments.plan import resolve

GIB = 2**30
SENT = {"instructions": 2, "executions": 8, "bytes": 15 / 8 * 2.5 * GIB}
STEP = {
    "program": "training step",
    "arguments": 3 * GIB,
    "outputs": 3 * GIB,
    "aliased": 3 * GIB,
    "temporaries": 2 * GIB,
    "weights": GIB,
    "peak": 4.5 * GIB,
    "flops": 3e14,
    "flops_executed": 4e14,
    "bytes_estimate": (3 + 3 + 4 * (1 + 2 * 2)) * GIB,
    "collectives": {"all-reduce": SENT, "all-gather": dict.fromkeys(SENT, 0)},
    "compile_seconds": 61.0,
    "seconds": {"compute": 0.16, "memory": 0.026, "communication": 0.02},
}
RECORD = {
    "table": "text",
    "row": "MDLM",
    "shared": ["other"],
    "topology": "v5e:4x4",
    "effort": "0",
    "key": "abc",
    "batch": 128,
    "length": 1000,
    "accumulate": 4,
    "sampled": 32,
    "chips": 16,
    "devices": "16 x TPU v5 lite",
    "parameters": "250,000,000",
    "commit": "c0ffee",
    "versions": {"jax": "0.10"},
    "programs": [STEP, STEP | {"program": "sampler", "temporaries": GIB, "compile_seconds": 9.0}],
}


def test_the_model_of_scaling_gives_the_compiled_step_at_its_own_size():
    assert scaling.strong(RECORD, 16) == scaling.compiled_step(RECORD) == scaling.weak(RECORD, 16)
    step = scaling.compiled_step(RECORD)
    assert (step.overlapped, step.serial, step.bound) == (0.16, pytest.approx(0.206), "compute")
    assert step.rate == 128_000 / 0.16 / 16


def test_strong_scaling_in_worked_numbers():
    """On 64 chips: 2 examples a chip, so 2 micro-batches; 6 GiB of state, 2 of weights, 16 / 4 of temporaries.

    Of 2.5 GiB of gradients that 4 micro-batches sum, 1 is summed once, and 0.5 in each micro-batch after the first.
    """
    step = scaling.strong(RECORD, 64)
    assert step.compute == pytest.approx(0.04)
    assert step.memory == pytest.approx(0.026 * (6 + 2 + 4) / 26)
    assert step.communication == pytest.approx(0.02 * (63 / 64) / (15 / 16) * 1.5 / 2.5)
    assert step.tokens == 128_000
    assert scaling.efficiency(step, scaling.strong(RECORD, 16)) == pytest.approx(1.0), "compute still binds"


def test_chips_beyond_the_batch_are_idle():
    full, beyond = scaling.strong(RECORD, 128), scaling.strong(RECORD, 1024)
    assert beyond[2:] == full[2:] and beyond.compute == pytest.approx(0.02)
    assert beyond.memory == pytest.approx(0.026 * (6 + 1 + 2) / 26), "one micro-batch"
    assert beyond.communication == pytest.approx(0.02 * (127 / 128) / (15 / 16) / 2.5)
    assert beyond.bound == "compute" and beyond.rate == pytest.approx(full.rate / 8)


def test_with_a_grown_batch_only_links_and_the_network_have_more_to_do():
    """1,024 chips of v5e are four slices, in whose network a chip sends a 256th of 2.5 GiB 2 (1 - 1/4) times."""
    step = scaling.weak(RECORD, 1024)
    assert (step.compute, step.memory, step.tokens) == (0.16, 0.026, 64 * 128_000)
    assert step.communication == pytest.approx(0.02 * (255 / 256) / (15 / 16))
    assert step.network == pytest.approx(1.5 * 2.5 * GIB / 256 / 3.125e9)
    slow = RECORD | {"programs": [STEP | {"seconds": STEP["seconds"] | {"communication": 0.3}}]}
    loss = scaling.efficiency(scaling.weak(slow, 1024), scaling.weak(slow, 16))
    assert loss == pytest.approx(15 / 16 * 256 / 255) and scaling.weak(slow, 16).bound == "communication"


def test_the_network_counts_from_the_second_slice_on():
    large = RECORD | {"batch": 4096, "accumulate": 1}
    one, two = scaling.strong(large, 256), scaling.strong(large, 512)
    assert one.network == 0 and two.communication == one.communication
    assert two.network == pytest.approx(2.5 * GIB / 256 / 3.125e9)
    unknown = large | {"devices": "16 x TPU v4"}
    assert scaling.strong(unknown, 512).network == 0


def test_one_row_of_each_method_and_the_last_of_those_that_differ_in_counts():
    names = [name for _, name, _ in representatives(prime_text)]
    assert names[:3] == ["AR", "AR, 8 digits", "MDLM"]
    assert {"Prime, 8 digits, joint", "Prime, 8 digits, marginal", "Prime, 8 digits, joint, carry-over"} <= set(names)
    assert not [name for name in names if "2 digits" in name or "steps" in name]


def test_a_program_that_tables_share_is_compiled_once():
    one = recipes({"remdm": remdm})
    both = recipes({"remdm": remdm, "again": remdm})
    assert [each.row for each in both] == [each.row for each in one]
    assert all(each.shared == ("again",) for each in both) and not any(each.shared for each in one)
    assert len(recipes({"udlm": udlm}, 1)) == 1


def test_numbers_share_a_program_unless_they_are_zero():
    table = udlm.get_config("paper")
    config, other, none = (resolve(table, {"model.dropout": rate}, 0) for rate in (0.1, 0.2, 0.0))
    assert structure(config) == structure(other) != structure(none)
    steps = resolve(table, {"train.steps": 3, "data.path": "folder", "optimizer.learning_rate": 1.0}, 5)
    assert structure(steps) == structure(config)
    assert structure(resolve(table, {"train.accumulate": 2}, 0)) != structure(config)


def test_every_table_with_a_trained_network_is_listed():
    modules = tables()
    listed = recipes(modules, 1)
    covered = {table for each in listed for table in (each.table, *each.shared)}
    without = untrained(modules)
    assert covered | set(without) == set(modules) and not covered & set(without)
    assert {"lidar_geneval", "lidar_rewards", "lidar_mixture"} == set(without)


@pytest.fixture
def recipe():
    config = udlm.get_config("paper")
    return Recipe("udlm", "MDLM", config, ("text8",))


def runner(calls, errors=()):
    """A stand-in for the compiler, which fails with these errors first."""
    errors = list(errors)

    def run(words, environment):
        calls.append((words, environment))
        if errors:
            return errors.pop(0)
        options = dict(word[2:].split("=", 1) for word in words if word.startswith("--"))
        path = record_path(Path(options["workdir"]), "udlm", "paper", options["row"], options["topology"])
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = dict.fromkeys(compiled_runs.FACTS, "") | {"devices": "16 x TPU v5 lite", "programs": [STEP]}
        path.write_text(json.dumps(facts))
        return ""

    return run


def last(listed, known, folder, run, effort="auto", only=()):
    return list(compiled_runs.update(listed, known, "v5e:4x4", effort, folder, run, list(only)))[-1]


def test_a_recipe_with_a_record_is_not_compiled_again(recipe, tmp_path):
    calls = []
    records = last([recipe], [], tmp_path, runner(calls))
    assert len(calls) == 1 and records[0]["programs"][0]["seconds"] == STEP["seconds"] and records[0]["chips"] == 16
    assert "--row=MDLM" in calls[0][0] and "--topology=v5e:4x4" in calls[0][0]
    assert last([recipe], records, tmp_path, runner(calls)) == records and len(calls) == 1
    changed = recipe._replace(config=resolve(recipe.config, {"model.hidden": 64}, 0))
    assert last([changed], records, tmp_path, runner(calls))[0]["key"] != records[0]["key"] and len(calls) == 2


def test_the_effort_is_part_of_a_record(recipe, tmp_path):
    calls = []
    records = last([recipe], [], tmp_path, runner(calls), "-1")
    assert records[0]["effort"] == "-1" and calls[0][1] == {"JAX_EXEC_TIME_OPTIMIZATION_EFFORT": "-1"}
    assert last([recipe], records, tmp_path, runner(calls)) == records and len(calls) == 1, "auto takes any"
    assert last([recipe], records, tmp_path, runner(calls), "0")[0]["effort"] == "0" and len(calls) == 2
    assert calls[1][1] == {"JAX_EXEC_TIME_OPTIMIZATION_EFFORT": "0"}
    images = resolve(recipe.config, {"model.net": "unet"}, 0)
    assert [compiled_runs.effort_of(each, "auto") for each in (images, recipe.config)] == ["-1", "0"]


def test_what_does_not_fit_is_a_result_and_another_error_is_tried_again(recipe, tmp_path):
    calls = []
    full = "memory: does not fit, by the compiler HLO temporaries need 43.83G; set model.remat=full"
    records = last([recipe], [], tmp_path, runner(calls, [full]))
    assert records[0]["error"] == full
    assert last([recipe], records, tmp_path, runner(calls)) == records and len(calls) == 1
    broken = last([recipe], [], tmp_path, runner(calls, ["killed"]))
    again = last([recipe], broken, tmp_path, runner(calls))
    assert broken[0]["error"] == "killed" and "error" not in again[0] and len(calls) == 3


def test_tables_that_are_not_named_wait(recipe, tmp_path):
    calls = []
    assert "programs" not in last([recipe], [], tmp_path, runner(calls), only=["mdlm_owt"])[0] and not calls
    assert "programs" in last([recipe], [], tmp_path, runner(calls), only=["text8"])[0], "a table that shares it"


def test_an_error_of_the_command_is_its_last_line(monkeypatch):
    ended = SimpleNamespace(returncode=2, stderr="warning: x\nlaunch.py: memory: does not fit\n")
    monkeypatch.setattr(compiled_runs.subprocess, "run", lambda *words, **options: ended)
    assert compiled_runs.process(1, [], {}) == "memory: does not fit"
    ended.returncode = 0
    assert compiled_runs.process(1, [], {}) == ""


def test_the_table_in_worked_numbers():
    full = RECORD | {"row": "AR", "programs": [], "error": "memory: does not fit; set model.remat=full"}
    waiting = {name: RECORD[name] for name in ("table", "shared", "topology", "batch")} | {"row": "Prime"}
    text = re.sub(" +", " ", rendered([RECORD, full, waiting], ["exact"], "compile.png"))
    assert "1 training steps with their samplers fit 16 x TPU v5 lite, 1 did not fit or compile, and 1 were not" in text
    proof = "| text: MDLM | 250 | 128 x 1000, 4 | 5.00 | 4.50 | 4.00 (32) | 300 | all-reduce 8 x, 4.69 GiB "
    assert proof + "| 160 | 26 | 20 | compute | 800,000 | 75 % | 70 (0) | other |" in text
    assert "| text: AR | memory: does not fit; set model.remat=full |" in text
    assert "text: Prime." in text and "this scale: exact." in text
    assert "| text: MDLM | 128 | 160 to 206 | 40 to 64.6 | 20 to 37.5 | 20 to 37.5 " in text
    assert "![Efficiency on more chips](compile.png)" in text and "at commit c0ffee with jax 0.10" in text


def test_the_plot_has_the_first_recipe_of_each_table(tmp_path):
    plot(tmp_path / "none.png", [RECORD | {"programs": [], "error": "memory"}])
    plot(tmp_path / "plot.png", [RECORD, RECORD | {"row": "AR"}])
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


def test_a_table_of_devices_without_known_rates_has_no_roofline():
    step = {name: value for name, value in STEP.items() if name != "seconds"}
    text = rendered([RECORD | {"topology": "devices here", "programs": [step]}], [], "compile.png")
    assert "On more chips" not in text and "5.00" in text


def test_the_committed_table_is_a_regeneration():
    records = read_rows(RECORDS)
    assert rendered(records, untrained(tables()), PLOT.name) == TABLE.read_text()
    assert len({name_of(each) for each in records}) == len(records)
