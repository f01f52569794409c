"""The verb `convert`: weights for load_weights, and errors without output for invalid files."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from configs.base import defaults
from diffusion.nets.gpt2 import GPT2
from diffusion.train.mesh import make_mesh
from diffusion.train.weights import load_weights
from experiments import families
from experiments.convert import command as convert
from experiments.plan import resolve
from experiments.published import check_recorded
from tests.checks import refused
from tests.experiments.weight_files import BLOCKS, HIDDEN, VOCAB, gpt2_file, gpt2_vocabulary, mdlm_file


def converted(folder):
    """Return a config with the network of a conversion."""
    return resolve(defaults("test", "debug"), json.loads((folder / "config.json").read_text())["overrides"], 0)


@pytest.mark.parametrize("adaln", [True, False])
def test_mdlm_weights_are_loaded_into_the_network_of_the_config(adaln, tmp_path, capsys):
    tensors = mdlm_file(tmp_path / "model.safetensors", adaln)
    # An older conversion is replaced: the folder has only the weights of the second.
    mdlm_file(tmp_path / "older.safetensors", not adaln)
    for name in ("older", "model"):
        convert.run("mdlm", str(tmp_path / f"{name}.safetensors"), tmp_path / "out")
    printed = capsys.readouterr().out
    config = converted(tmp_path / "out")
    assert config.model.causal is not adaln and config.model.heads == 4
    assert config.model.start == ("mask" if adaln else "window")
    families.objective(config, system := families.system(config, VOCAB - 1))
    params = load_weights(tmp_path / "out" / "weights", system.init, make_mesh())
    np.testing.assert_array_equal(params["embedding"], tensors["backbone.vocab_embed.embedding"])
    last = tensors[f"backbone.blocks.{BLOCKS - 1}.mlp.2.weight"].T
    np.testing.assert_array_equal(params["blocks"]["mlp_out"]["kernel"][-1], last)
    assert ("time_embedder" in params) == adaln
    assert f"--config.checkpoint={tmp_path / 'out'} " in printed
    assert f"--config.model.hidden={HIDDEN}" in printed
    assert f"--row={'MDLM' if adaln else 'AR'}" in printed


@pytest.mark.parametrize("digits", [2, 4])
def test_weights_of_sub_tokens_are_loaded_into_the_network_of_the_config(digits, tmp_path, capsys):
    """22 tokens have the bases 5 and 3; the table has one row more, for the mask."""
    tensors = mdlm_file(
        tmp_path / "prime.safetensors", vocabulary=22, table=({2: 5, 4: 3}[digits] + 1, HIDDEN // digits)
    )
    convert.run("prime", str(tmp_path / "prime.safetensors"), tmp_path / "out")
    config = converted(tmp_path / "out")
    assert config.codec.digits == digits and "carry_over=False" in capsys.readouterr().out
    published = tmp_path / f"results_prime_l{digits}_co_owt"
    published.mkdir()
    (tmp_path / "prime.safetensors").rename(published / "prime.safetensors")
    for given, kept in ({}, True), ({"carry_over": False}, False):
        convert.run("prime", str(published / "prime.safetensors"), tmp_path / "other", **given)
        assert converted(tmp_path / "other").codec.carry_over is kept
    system = families.system(config, 22)
    # The folder of the conversion stands for that of its weights.
    params = load_weights(tmp_path / "out", system.init, make_mesh())
    np.testing.assert_array_equal(params["embedder"]["table"], tensors["backbone.vocab_embed.embedding"])


def test_an_embedding_of_another_width_is_refused(tmp_path):
    mdlm_file(tmp_path / "odd.safetensors", table=(6, HIDDEN // 3))
    with refused("an embedding of 6 x 21 does not fit 23 outputs of width 64"):
        convert.run("prime", str(tmp_path / "odd.safetensors"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("backbone.vocab_embed.embedding", (HIDDEN,), r"'vocab_embed\.embedding' of '.*' has shape \(64,\)"),
        ("backbone.output_layer.linear.weight", (0, HIDDEN), r"linear\.weight' of '.*' has shape \(0, 64\)"),
        ("backbone.blocks.0.mlp.0.weight", (), r"mlp\.0\.weight' of '.*' has shape \(\)"),
        ("backbone.rotary_emb.inv_freq", (0,), "rotary_emb.inv_freq of '.*' is not"),
        ("backbone.rotary_emb.inv_freq", (), "rotary_emb.inv_freq of '.*' is not"),
        ("backbone.rotary_emb.inv_freq", (2, 4), "rotary_emb.inv_freq of '.*' is not"),
    ],
)
def test_tensors_of_another_shape_are_refused(name, shape, message, tmp_path):
    tensors = mdlm_file(tmp_path / "model.safetensors")
    save_file(tensors | {name: np.ones(shape, np.float32)}, tmp_path / "model.safetensors")
    with refused(f"checkpoint: .*{message}"):
        convert.run("mdlm", str(tmp_path / "model.safetensors"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "fields", ['{"n_heads": "4"}', '{"model_length": -1}', '{"time_conditioning": 3}', "[" * 100_000]
)
def test_a_damaged_config_beside_weights_is_named(fields, tmp_path):
    mdlm_file(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(fields)
    with refused(r"checkpoint: '.*config\.json' "):
        convert.run("mdlm", str(tmp_path / "model.safetensors"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_gpt2_folder_has_the_weights_of_the_judge(tmp_path, capsys):
    tensors = gpt2_file(tmp_path / "model.safetensors")
    convert.run("gpt2", str(tmp_path), tmp_path / "gpt2")
    net = GPT2(**json.loads((tmp_path / "gpt2" / "config.json").read_text())["sizes"])
    folder = tmp_path / "gpt2" / "weights"
    params = load_weights(folder, lambda key: net.init(key, np.zeros((1, 2), np.int32))["params"], make_mesh())
    np.testing.assert_array_equal(params["positions"], tensors["wpe.weight"])
    assert f"--config.judge.checkpoint={tmp_path / 'gpt2'}" in capsys.readouterr().out


def test_invalid_input_raises_and_writes_no_file(tmp_path):
    def assert_error(match, layout, checkpoint, **options):
        with refused(match, (ValueError, FileNotFoundError)):
            convert.run(layout, str(checkpoint), tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()

    mdlm_file(tmp_path / "model.safetensors")
    assert_error(
        "--from: None is not a layout; pass one of mdlm, prime, gstar, gpt2", None, tmp_path / "model.safetensors"
    )
    assert_error("--checkpoint=FILE", "mdlm", "")
    assert_error("does not exist", "mdlm", tmp_path / "none.safetensors")
    assert_error("has no tensor 'wte.weight'", "gpt2", tmp_path / "model.safetensors")
    vocabulary = str(gpt2_vocabulary(tmp_path / "vocabulary"))
    for message, options in (
        ("--heads: 5 heads do not fit '.*' of width 64; pass 4", {"heads": 5}),
        ("--tokenizer: '.*' has 257 tokens and the checkpoint 22", {"tokenizer": vocabulary}),
        ("--tokenizer: '.*' has no vocab.json and merges.txt or", {"tokenizer": str(tmp_path)}),
        ("--denoiser: goes with --from=gstar, not with --from=mdlm", {"denoiser": "x"}),
        ("--carry_over: goes with --from=prime, not with --from=mdlm", {"carry_over": False}),
    ):
        assert_error(message, "mdlm", tmp_path / "model.safetensors", **options)
    assert_error("has no error predictor", "gstar", tmp_path / "model.safetensors", denoiser="x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with refused("holds other files, which would be lost"):
        convert.run("mdlm", str(tmp_path / "model.safetensors"), tmp_path / "out")


def test_a_job_of_another_network_than_the_converted_is_refused(tmp_path):
    mdlm_file(tmp_path / "model.safetensors", adaln=False)
    convert.run("mdlm", str(tmp_path / "model.safetensors"), tmp_path / "out")
    for checkpoint in (tmp_path / "out", tmp_path / "out" / "weights"):
        config = converted(tmp_path / "out")
        config.checkpoint = str(checkpoint)
        check_recorded(config)
        for name, value in (("heads", 2), ("start", "mask")):
            wrong = config.copy_and_resolve_references()
            wrong.model[name] = value
            with refused(rf"model\.{name}: .* was converted with it; pass --config\.model\.{name}=(4|window)"):
                check_recorded(wrong)
