"""Costs of LiDAR's methods by shape: composed FLOPs against those of whole samplers, and the committed table."""

import json
import re

import pytest

from configs import lidar_geneval
from diffusion.train.traffic import Roofline, flops
from experiments.benchmarks import lidar_compiled, lidar_cost, lidar_programs
from experiments.flops import sampling_flops
from tests.checks import refused

TINY = lidar_geneval.get_config("debug")


def composed(config):
    """Return the FLOPs of a method's samplers: of all parts but the last decoding, and the rewards of lookahead."""
    parts = lidar_programs.method_cost(config).parts[:-1]
    if config.sample.gaussian.method == "lidar":
        parts = [part for part in parts if part.kind == lidar_programs.FORWARD]
    return sum(part.times * (flops(part.program) - flops(part.without)) for part in parts)


def agrees(name):
    config = lidar_programs.row_config(lidar_geneval, TINY, name)
    assert composed(config) == pytest.approx(sum(sampling_flops(config, config.data.vocab_size)), rel=5e-4)


def test_parts_have_the_operations_of_whole_samplers():
    agrees("SDXL, DDPM: LiDAR, LCM-4, 3")


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["SD 1.5", "SDXL"])
@pytest.mark.parametrize("method", ["UG", "DATE"])
def test_parts_of_methods_with_gradients_have_the_operations_of_whole_samplers(backbone, method):
    agrees(f"{backbone}, DDPM: {method}")


def test_published_passes_of_date_are_fewer_than_ours():
    """An update has 3 and 4 evaluations and one backward pass, and each image is alone in a chunk of one."""
    config = lidar_programs.row_config(
        lidar_geneval, TINY, "SD 1.5, DDPM: DATE", {"sample.gaussian.chunk": 1, "sample.gaussian.condition.period": 1}
    )
    turns = config.sample.steps * config.sample.gaussian.images
    for published, passes in ((True, 3), (False, 4)):
        cost = lidar_programs.method_cost(config, published)
        assert (cost.forward, cost.backward) == (passes * turns, turns)
        assert [part.times for part in cost.parts] == [passes * turns, turns, turns, turns, 1]


def test_chunks_are_of_equal_size():
    assert lidar_programs.chunked(9, 5) == (2, 5) and lidar_programs.chunked(16, 5) == (4, 4)
    assert lidar_programs.chunked(4, 25) == lidar_programs.chunked(4, 0) == (1, 4)


def test_other_methods_raise():
    config = lidar_programs.row_config(
        lidar_geneval, TINY, "SD 1.5, DDPM: vanilla", {"sample.gaussian.method": "steering"}
    )
    with refused("the cost of steering is not composed"):
        lidar_programs.method_cost(config)


def test_records_of_compilations_replace_those_of_the_same_row(tmp_path):
    program = dict.fromkeys((*lidar_compiled.KEPT, "compile_seconds"), 2**30)
    program |= {"program": "sampler", "seconds": {"compute": 1.0, "memory": 2.5}}
    record = {"row": "SD", "topology": "v6e:1x1", "devices": "1", "attention": "plain", "effort": "-1", "commit": "abc"}
    record |= {"versions": {"jax": "0.10"}, "programs": [program], "table": "left out"}
    (tmp_path / "lidar_geneval.paper.sd.json").write_text(json.dumps(record))
    other = record | {"topology": "v5p:1x1x1"}
    (found, new) = lidar_compiled.gathered([other, record | {"commit": "old"}], tmp_path)
    assert found == other and new["commit"] == "abc" and "table" not in new
    table = lidar_compiled.compiled_table([found, new])
    assert "| 2.00" in table and "2.50" in table and table.count("--topology=v6e:1x1") == 1
    with refused("has no records"):
        lidar_compiled.gathered([], tmp_path / "none")


def test_rooflines_add_up():
    one = Roofline(3.0, 1.0, 2.0, 2.5)
    assert lidar_cost.added(one, lidar_cost.times(2, one)) == lidar_cost.times(3, one)
    assert one.whole == 2.5


@pytest.mark.slow
def test_the_committed_table_is_a_regeneration():
    committed = lidar_cost.TABLE.read_text()
    version = re.search(r"at commit ([0-9a-f]+\+?|unknown);", committed)
    assert version
    records = json.loads(lidar_cost.RECORDS.read_text()) if lidar_cost.RECORDS.exists() else []
    assert lidar_cost.rendered(version[1], records) == committed, f"run `{lidar_cost.COMMAND}`"
