"""The verb `compile`: figures of programs, and one-line errors for invalid input."""

import importlib.util
import json
from functools import partial

import jax
import pytest

from configs import lidar_mixture, lidar_shapes, mdlm_owt, text8
from diffusion.train import hardware
from diffusion.train.mesh import make_mesh, slice_of
from experiments import compile as ahead_of_time
from experiments.aot.programs import memory_error
from experiments.families.masked_sampling import network_evaluations
from experiments.flops import sampling_flops, training_flops
from experiments.plan import find_row, resolve
from tests.checks import refused

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is an optional requirement: pip install libtpu"
)
run = partial(ahead_of_time.run, mdlm_owt)


@pytest.fixture
def config():
    config = mdlm_owt.get_config("debug")
    config.model.blocks = 1
    config.train.batch = config.sample.batch = 8
    return config


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
    # The head of the training step reads masked tokens alone: about half of them.
    head = 3 * 2 * config.model.hidden * (config.data.vocab_size + 1)
    skipped = (sampler["flops"] / 5 * 3 - step["flops"] - sinusoids) / head / 16 / config.data.length
    assert 0.3 < skipped < 0.5
    assert step["flops_executed"] == step["flops"]
    # One number in each evaluation: the largest number of tokens that a device draws.
    assert sampler["collectives"]["all-reduce"]["executions"] == 5
    assert sampler["collectives"]["all-reduce"]["bytes"] < 100


def test_errors_are_one_line(config, tmp_path):
    with refused("row: unknown 'GPT'; known: 'AR', 'MDLM'"):
        run(config, "GPT", "", tmp_path)
    with refused("autoregressive goes with"):  # fields of the command line replace those of rows
        run(config, "AR", "", tmp_path, {"model.causal": False})
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
    mixture = lidar_mixture.get_config("debug")
    with refused("is an exact model of numbers on a line"):
        ahead_of_time.run(lidar_mixture, mixture, "", "", tmp_path)


@needs_libtpu
@pytest.mark.parametrize("topology", ["v5e:4x5", "4x4"])
def test_misspelled_topology_lists_examples(config, topology, tmp_path):
    with refused(f"topology: '{topology}' is not a TPU slice .*examples: v4:2x2x1, v5e:4x4"):
        run(config, "", topology, tmp_path)


def test_error_for_missing_libtpu_has_its_installation(config, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "libtpu" else find(name))
    with refused("libtpu is not installed; pip install"):
        run(config, "", "v5e:4x4", tmp_path)


@needs_libtpu
@pytest.mark.parametrize(
    ("topology", "count"),
    [("v4:2x2x1", 4), ("v5e:4x4", 16), ("v5p:1x1x1", 1), ("v6e:1x1", 1), ("2xv5e:4x4", 32), ("2xv4:2x2x1", 8)],
)
def test_slices_have_whole_chips_with_known_figures(topology, count):
    devices = ahead_of_time.slice_devices(topology)
    assert len(devices) == count
    figures = hardware.peak(devices[0].device_kind)
    expected = {"v4": 275e12, "v5e": 197e12, "v5p": 459e12, "v6e": 918e12}
    slices, _, name = topology.partition(":")[0].rpartition("x")
    assert figures.flops == expected[name]
    assert len(set(map(slice_of, devices))) == int(slices or 1)


def test_peak_figures_are_those_of_the_longest_matching_name():
    for kind, tera in {"TPU v5p": 459, "TPU v5e": 197, "NVIDIA H100 80GB HBM3": 989, "NVIDIA H100 PCIe": 756}.items():
        assert hardware.peak(kind).flops == tera * 1e12
    assert hardware.peak("cpu") is None


MEMORY_ERRORS = {
    "total memory required for HLO temporaries (43.83G) exceeds available HBM (15.75G).": (
        "HLO temporaries need 43.83G of the 15.75G of HBM"
    ),
    "Ran out of memory in memory space hbm. Used 99.91G of 95.74G hbm.\n\n    reserved   258.00M": (
        "needs 99.91G of the 95.74G of hbm"
    ),
    "something else\nin two lines": "RESOURCE_EXHAUSTED: something else in two lines",
}


def test_memory_error_is_one_line_with_figures_and_remedy():
    for message, expected in MEMORY_ERRORS.items():
        line = memory_error(f"RESOURCE_EXHAUSTED: {message}")
        assert expected in line and "model.remat=full" in line and "\n" not in line


def test_network_evaluations_of_samplers():
    config = text8.get_config("debug")
    length, steps = config.data.length, config.sample.steps
    assert network_evaluations(config) == steps + 1
    config.sample.update(length=2 * length, stride=length // 2)
    assert network_evaluations(config) == 3 * (steps + 1)
    config.sample.update(length=0, policy="first_hitting")
    assert network_evaluations(config) == length


def test_causal_row_reads_each_token_once(config):
    causal = resolve(config, find_row(list(mdlm_owt.rows(config)), "AR")["overrides"], 0)
    step, remat = (training_flops(causal, causal.data.vocab_size, policy) for policy in ("none", "full"))
    assert sampling_flops(causal, causal.data.vocab_size) == [pytest.approx(step / 3)]
    assert 1 < remat / step < 4 / 3, "at most one more forward pass"


def test_guided_row_has_a_lookahead_and_a_sampler():
    config = lidar_shapes.get_config("debug")
    config.captioned_unet.transformer_layers = (0,)
    rows = list(lidar_shapes.rows(config))
    assert rows[0]["name"] == "exact: base" and ahead_of_time.default_row(rows, config) == "Reward model"
    guided = resolve(config, find_row(rows, "LiDAR 4")["overrides"], 0)
    reward = ahead_of_time.helper_config(rows, config, guided)
    lookahead, sampler = sampling_flops(guided, guided.data.vocab_size, reward)
    # A training step has no gradient by the noisy image.
    one = pytest.approx(training_flops(guided, guided.data.vocab_size) / 3 / guided.train.batch, rel=0.05)
    # Classifier-free guidance doubles 3 steps for 4 lookahead samples and 10 steps for 4 images per prompt.
    assert lookahead / (guided.sample.batch * 2 * 4 * 3) == one
    assert sampler / (guided.sample.batch * 2 * 4 * guided.sample.steps) == one


def compiled(name, folder):
    """Return config and programs of a row of the debug table of prompted images."""
    config = lidar_shapes.get_config("debug")
    ahead_of_time.run(lidar_shapes, config, name, "", folder)
    (path,) = (folder / "compile").iterdir()
    return config, json.loads(path.read_text())["programs"]


def test_exact_model_has_no_training_step(tmp_path):
    config, (lookahead, sampler) = compiled("exact: LiDAR 8", tmp_path)
    assert sampler["program"] == "sampler by lidar, 10 steps"
    (path,) = (tmp_path / "compile").iterdir()
    assert json.loads(path.read_text())["batch"] == f"sampler {config.sample.batch}", "no batch of a training"
    pools = config.sample.batch * config.sample.gaussian.pool * config.data.length
    assert pools * 4 < lookahead["arguments"] * jax.device_count() < sampler["arguments"] * jax.device_count()
    # The exact denoiser compares every state with all images of its pool, and averages them; guidance adds to it.
    assert lookahead["flops"] == 4 * pools * 8 * 3
    assert 1 < sampler["flops"] / (4 * pools * config.sample.gaussian.images * config.sample.steps) < 1.5


@pytest.mark.slow
def test_guided_row_and_its_reward_compile(tmp_path):
    _, (_, lookahead, sampler) = compiled("LiDAR 4", tmp_path / "guided")
    assert sampler["program"] == "sampler by lidar, 10 steps" and sampler["arguments"] > lookahead["arguments"]
    _, (step,) = compiled("", tmp_path / "reward")
    assert step["aliased"] > 0 and step["flops"] > 0


@needs_libtpu
@pytest.mark.slow
def test_parameters_are_gathered_within_each_of_two_slices(config, tmp_path):
    """And gradients are summed over both."""
    config.mesh.fsdp, config.model.hidden = 4, 256
    mesh = make_mesh(**config.mesh, devices=ahead_of_time.slice_devices("2xv5e:2x2"))
    assert mesh.shape == {"data": 2, "fsdp": 4, "model": 1}
    assert [set(map(slice_of, row.flat)) for row in mesh.devices] == [{0}, {1}]
    run(config, "", "2xv5e:2x2", tmp_path)
    record = json.loads((tmp_path / "compile" / "mdlm_owt.debug.mdlm-2xv5e-2x2.json").read_text())
    assert record["devices"] == "8 x TPU v5 lite"
    assert record["programs"][0]["collectives"]["all-gather"]["executions"] > 0
    config.mesh.fsdp = 8
    with refused("mesh: fsdp x model = 8 x 1 does not divide the 4 devices of each of 2 slices"):
        run(config, "", "2xv5e:2x2", tmp_path)


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
