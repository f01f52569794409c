"""The verb `convert`: weights for load_weights, and errors without output for invalid files."""

import json

import numpy as np
import pytest
import safetensors.numpy

from configs.base import defaults
from diffusion.train.mesh import make_mesh
from diffusion.train.weights import load_weights
from experiments import convert, families
from experiments.plan import resolve

VOCAB, HIDDEN, BLOCKS, COND = 23, 64, 2, 16


def mdlm_file(path, adaln=True):
    """Write random tensors with names and shapes of the public MDLM, or of its autoregressive baseline."""
    shapes = {
        "vocab_embed.embedding": (VOCAB, HIDDEN),
        "output_layer.norm_final.weight": (HIDDEN,),
        "output_layer.linear.weight": (VOCAB, HIDDEN),
        "output_layer.linear.bias": (VOCAB,),
        "rotary_emb.inv_freq": (8,),
    }
    if adaln:
        shapes |= {
            "sigma_map.mlp.0.weight": (COND, 256),
            "sigma_map.mlp.0.bias": (COND,),
            "sigma_map.mlp.2.weight": (COND, COND),
            "sigma_map.mlp.2.bias": (COND,),
            "output_layer.adaLN_modulation.weight": (2 * HIDDEN, COND),
            "output_layer.adaLN_modulation.bias": (2 * HIDDEN,),
        }
    for number in range(BLOCKS):
        block = {
            "norm1.weight": (HIDDEN,),
            "norm2.weight": (HIDDEN,),
            "attn_qkv.weight": (3 * HIDDEN, HIDDEN),
            "attn_out.weight": (HIDDEN, HIDDEN),
            "mlp.0.weight": (4 * HIDDEN, HIDDEN),
            "mlp.0.bias": (4 * HIDDEN,),
            "mlp.2.weight": (HIDDEN, 4 * HIDDEN),
            "mlp.2.bias": (HIDDEN,),
        }
        if adaln:
            block |= {"adaLN_modulation.weight": (6 * HIDDEN, COND), "adaLN_modulation.bias": (6 * HIDDEN,)}
        shapes |= {f"blocks.{number}.{name}": shape for name, shape in block.items()}
    random = np.random.default_rng(0)
    tensors = {f"backbone.{name}": random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    safetensors.numpy.save_file(tensors, path)
    return tensors


@pytest.mark.parametrize("adaln", [True, False])
def test_mdlm_weights_are_loaded_into_the_network_of_the_config(adaln, tmp_path, capsys):
    tensors = mdlm_file(tmp_path / "model.safetensors", adaln)
    convert.run("mdlm", str(tmp_path / "model.safetensors"), tmp_path / "out")
    printed = capsys.readouterr().out
    description = json.loads((tmp_path / "out" / "config.json").read_text())
    config = resolve(defaults("test", "debug"), description["overrides"], 0)
    assert config.model.causal is not adaln
    families.objective(config, system := families.system(config, VOCAB - 1))
    params = load_weights(tmp_path / "out" / "weights", system.init, make_mesh())
    np.testing.assert_array_equal(params["embedding"], tensors["backbone.vocab_embed.embedding"])
    last = tensors[f"backbone.blocks.{BLOCKS - 1}.mlp.2.weight"].T
    np.testing.assert_array_equal(params["blocks"]["mlp_out"]["kernel"][-1], last)
    assert f"--config.checkpoint={tmp_path / 'out' / 'weights'}" in printed
    assert f"--config.model.hidden={HIDDEN}" in printed
    assert f"--row={'MDLM' if adaln else 'AR'}" in printed


def test_gpt2_folder_has_the_weights_of_the_judge(tmp_path, capsys):
    random = np.random.default_rng(0)
    block = {
        "ln_1": ((HIDDEN,), (HIDDEN,)),
        "ln_2": ((HIDDEN,), (HIDDEN,)),
        "attn.c_attn": ((HIDDEN, 3 * HIDDEN), (3 * HIDDEN,)),
        "attn.c_proj": ((HIDDEN, HIDDEN), (HIDDEN,)),
        "mlp.c_fc": ((HIDDEN, 4 * HIDDEN), (4 * HIDDEN,)),
        "mlp.c_proj": ((4 * HIDDEN, HIDDEN), (HIDDEN,)),
    }
    shapes = {"wte.weight": (VOCAB, HIDDEN), "wpe.weight": (9, HIDDEN)}
    shapes |= {"ln_f.weight": (HIDDEN,), "ln_f.bias": (HIDDEN,)}
    for name, (weight, bias) in block.items():
        shapes |= {f"h.0.{name}.weight": weight, f"h.0.{name}.bias": bias}
    tensors = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    convert.run("gpt2", str(tmp_path), tmp_path / "gpt2")
    sizes = json.loads((tmp_path / "gpt2" / "config.json").read_text())["sizes"]

    from diffusion.nets.gpt2 import GPT2

    net = GPT2(**sizes)
    folder = tmp_path / "gpt2" / "weights"
    params = load_weights(folder, lambda key: net.init(key, np.zeros((1, 2), np.int32))["params"], make_mesh())
    np.testing.assert_array_equal(params["positions"], tensors["wpe.weight"])
    assert f"--config.judge.checkpoint={tmp_path / 'gpt2'}" in capsys.readouterr().out


def test_invalid_input_raises_and_writes_no_file(tmp_path):
    def assert_error(match, layout, checkpoint):
        with pytest.raises((ValueError, FileNotFoundError), match=match) as caught:
            convert.run(layout, str(checkpoint), tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()

    mdlm_file(tmp_path / "model.safetensors")
    assert_error("--from=gpt2 or --from=mdlm", None, tmp_path / "model.safetensors")
    assert_error("--checkpoint=FILE", "mdlm", "")
    assert_error("does not exist", "mdlm", tmp_path / "none.safetensors")
    assert_error("'wte.weight' is missing", "gpt2", tmp_path / "model.safetensors")


def test_conversion_replaces_an_older_one(tmp_path):
    """After a second conversion the folder has only the second weights."""
    mdlm_file(tmp_path / "ar.safetensors", adaln=False)
    tensors = mdlm_file(tmp_path / "mdlm.safetensors")
    for name in ("ar", "mdlm"):
        convert.run("mdlm", str(tmp_path / f"{name}.safetensors"), tmp_path / "out")
    config = resolve(
        defaults("test", "debug"), json.loads((tmp_path / "out" / "config.json").read_text())["overrides"], 0
    )
    params = load_weights(tmp_path / "out" / "weights", families.system(config, VOCAB - 1).init, make_mesh())
    kernel = tensors["backbone.sigma_map.mlp.0.weight"].T
    np.testing.assert_array_equal(params["time_embedder"]["first"]["kernel"], kernel)
