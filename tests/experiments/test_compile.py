"""The verb `compile`: figures of programs, and one-line errors for invalid input."""

import importlib.util
import json
from functools import partial

import jax
import pytest

from configs import lidar_mixture, lidar_shapes, mdlm_owt, text8
from diffusion.train import hardware
from experiments import compile as ahead_of_time
from experiments.aot.programs import memory_error
from experiments.families.masked_sampling import network_evaluations
from tests.checks import refused

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is an optional requirement: pip install libtpu"
)
run = partial(ahead_of_time.run, mdlm_owt)


@pytest.fixture
def config():
    return mdlm_owt.get_config("debug")


def test_debug_table_on_local_devices(config, tmp_path, capsys):
    config.train.accumulate = 2
    config.train.batch = config.sample.batch = 16
    run(config, "", "", tmp_path)
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "compile" / "mdlm_owt.debug.mdlm-here.json").read_text())
    step, sampler = record["programs"]
    assert record["row"] == "MDLM", "the row without overrides"
    assert f"{jax.device_count()} x cpu" in printed and "fits" in printed.splitlines()
    # Arguments are mostly parameters, two moments and the average in float32, and donation frees their memory.
    state = 4 * 4 * int(record["parameters"].replace(",", ""))
    assert state < step["arguments"] < 1.1 * state + 2**14
    assert step["aliased"] > 0.95 * state
    assert step["collectives"]["all-reduce"]["executions"] > 0
    # Sampling has one pass per sequence in each of 4 steps and one at the end; a training step has 3, but for the
    # gradient by the sinusoids of the noise level, which is embedded for the blocks and for the head.
    sinusoids = 16 * 2 * 2 * 256 * config.model.cond_dim
    assert sampler["flops"] == pytest.approx((step["flops"] + sinusoids) / 3 * 5)
    assert step["flops_executed"] == step["flops"]
    assert sampler["collectives"]["all-reduce"]["executions"] == 0


def test_causal_row_reads_each_token_once(config, tmp_path):
    config.train.batch = config.sample.batch = 8
    config.model.remat = "full"
    run(config, "AR", "", tmp_path)
    step, sampler = json.loads((tmp_path / "compile" / "mdlm_owt.debug.ar-here.json").read_text())["programs"]
    assert sampler["flops"] == pytest.approx(step["flops"] / 3)
    assert 1 < step["flops_executed"] / step["flops"] < 4 / 3, "at most one more forward pass"


def test_fields_of_the_command_line_replace_those_of_rows(config, tmp_path):
    config.train.batch = config.sample.batch = 8
    with refused("autoregressive goes with"):
        run(config, "AR", "", tmp_path, {"model.causal": False})


def test_errors_are_one_line(config, tmp_path):
    with refused("row: unknown 'GPT'; known: 'AR', 'MDLM'"):
        run(config, "GPT", "", tmp_path)
    config.sample.batch = 12
    with refused("sample.batch: 12 is not a multiple"):
        run(config, "", "", tmp_path)
    config.train.batch = 12
    with refused("train.batch: 12 is not a multiple"):
        run(config, "", "", tmp_path)
    config.mesh.fsdp = 3
    with refused("mesh: data x fsdp x model"):
        run(config, "", "", tmp_path)
    assert not (tmp_path / "compile").exists()


@needs_libtpu
@pytest.mark.parametrize("topology", ["v5e:4x5", "v5e-16", "v9z:4x4", "4x4"])
def test_misspelled_topology_lists_examples(config, topology, tmp_path):
    with refused(f"topology: '{topology}' is not a TPU slice .*examples: v4:2x2x1, v5e:4x4"):
        run(config, "", topology, tmp_path)


def test_error_for_missing_libtpu_has_its_installation(config, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "libtpu" else find(name))
    with refused("libtpu is not installed; pip install"):
        run(config, "", "v5e:4x4", tmp_path)


@needs_libtpu
@pytest.mark.parametrize(("topology", "count"), [("v4:2x2x1", 4), ("v5e:4x4", 16), ("v5p:2x2x1", 4), ("v6e:4x4", 16)])
def test_slices_have_whole_chips_with_known_figures(topology, count):
    devices = ahead_of_time.slice_devices(topology)
    assert len(devices) == count
    figures = hardware.peak(devices[0].device_kind)
    expected = {"v4": 275e12, "v5e": 197e12, "v5p": 459e12, "v6e": 918e12}
    assert figures.flops == expected[topology.partition(":")[0]]


@pytest.mark.parametrize(
    ("kind", "tera"),
    [("TPU v5p", 459), ("TPU v5e", 197), ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("cpu", None)],
)
def test_peak_figures_are_those_of_the_longest_matching_name(kind, tera):
    figures = hardware.peak(kind)
    assert figures is None if tera is None else figures.flops == tera * 1e12


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (43.83G) "
            "exceeds available HBM (15.75G).",
            "HLO temporaries need 43.83G of the 15.75G of HBM",
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 99.91G "
            "of 95.74G hbm. Exceeded hbm capacity by 4.17G.\n\nTotal hbm usage >= 100.16G:\n    reserved   258.00M",
            "needs 99.91G of the 95.74G of hbm",
        ),
        ("RESOURCE_EXHAUSTED: something else\nin two lines", "RESOURCE_EXHAUSTED: something else in two lines"),
    ],
)
def test_memory_error_is_one_line_with_figures_and_remedy(message, expected):
    line = memory_error(message)
    assert expected in line and "model.remat=full" in line and "\n" not in line


def test_network_evaluations_of_samplers():
    config = text8.get_config("debug")
    length, steps = config.data.length, config.sample.steps
    assert network_evaluations(config) == steps + 1
    config.sample.update(length=2 * length, stride=length // 2)
    assert network_evaluations(config) == 3 * (steps + 1)
    config.sample.update(length=0, policy="first_hitting")
    assert network_evaluations(config) == length


def programs_of(name, tmp_path, **fields):
    """Return config and programs of a row of the debug table of prompted images."""
    config = lidar_shapes.get_config("debug")
    ahead_of_time.run(lidar_shapes, config, name, "", tmp_path, fields)
    (path,) = (tmp_path / "compile").iterdir()
    return config, json.loads(path.read_text())["programs"]


def test_guided_row_has_a_lookahead_and_a_sampling_program(tmp_path):
    config, (step, lookahead, sampler) = programs_of("LiDAR 4", tmp_path)
    # A training step has no gradient by the noisy image.
    one = pytest.approx(step["flops"] / 3 / config.train.batch, rel=0.05)
    # Classifier-free guidance doubles 3 steps for 4 lookahead samples and 10 steps for 4 images per prompt.
    assert lookahead["flops"] / (config.sample.batch * 2 * 4 * 3) == one
    assert sampler["flops"] / (config.sample.batch * 2 * 4 * config.sample.steps) == one
    assert sampler["program"] == "sampler by lidar, 10 steps" and sampler["arguments"] > lookahead["arguments"]


def test_reward_has_only_a_training_step(tmp_path):
    _, (step,) = programs_of("Reward model", tmp_path)
    assert step["aliased"] > 0 and step["flops"] > 0


def test_exact_model_has_only_a_sampler(tmp_path):
    config, (sampler,) = programs_of("exact: base", tmp_path)
    pools = config.sample.batch * config.sample.gaussian.pool * config.data.length
    assert sampler["arguments"] * jax.device_count() > 4 * pools
    # The exact denoiser compares every state with all images of its pool, and averages them.
    assert sampler["flops"] == 4 * pools * config.sample.gaussian.images * config.sample.steps


def test_default_row_has_a_network():
    rows = list(lidar_shapes.rows(lidar_shapes.get_config("debug")))
    assert rows[0]["name"] == "exact: base"
    assert ahead_of_time.default_row(rows, lidar_shapes.get_config("debug")) == "Reward model"


def test_compilation_of_one_dimensional_exact_models_raises(tmp_path):
    config = lidar_mixture.get_config("debug")
    with refused("is an exact model of numbers on a line"):
        ahead_of_time.run(lidar_mixture, config, "", "", tmp_path)


@needs_libtpu
@pytest.mark.slow
def test_published_config_fits_sixteen_v5e_chips_and_one_without_accumulation_does_not(tmp_path, capsys):
    config = mdlm_owt.get_config("paper")
    run(config, "", "v5e:4x4", tmp_path)
    record = json.loads((tmp_path / "compile" / "mdlm_owt.paper.mdlm-v5e-4x4.json").read_text())
    assert record["parameters"] == "169,627,218", "the number of the public MDLM"
    assert record["attention"] == "splash"
    for program in record["programs"]:
        used = program["arguments"] + program["outputs"] - program["aliased"] + program["temporaries"]
        assert used < 0.85 * 16 * 2**30, "some memory remains"
    assert "MFU at most" in capsys.readouterr().out
    config.train.accumulate = 1
    config.model.remat = "none"
    with refused(r"memory: does not fit, .* [\d.]+G of the 15.75G of"):
        run(config, "", "v5e:4x4", tmp_path)
