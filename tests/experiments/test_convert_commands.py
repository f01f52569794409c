"""Converted folders of every layout, used by the commands that `convert` prints, as they are printed."""

import json
import shlex
import sysconfig

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffusion.convert import discrete_unet
from diffusion.convert.template import named
from diffusion.nets.discrete_unet import UNet
from experiments.convert.command import run
from tests.experiments.weight_files import HIDDEN, gpt2_file, gpt2_vocabulary, mdlm_file
from tests.weights import randomized

TOKENS = 257
LENGTH = 16
UNET = dict(channels=8, multipliers=(1, 2), res_blocks=1, attention_factors=(2,), head_channels=8, groups=4)


def mdlm(file):
    mdlm_file(file, vocabulary=TOKENS + 1, scale=0.1)


def autoregressive(file):
    mdlm_file(file, adaln=False, vocabulary=TOKENS + 1, scale=0.1)


def prime(file):
    """Four sub-tokens of base 5, of which the table has one row more."""
    mdlm_file(file, vocabulary=TOKENS, table=(6, HIDDEN // 4), scale=0.1)


def prime_v2(file):
    """Nine binary sub-tokens of permuted codes, with a table for each place, summed."""
    tensors = mdlm_file(file, vocabulary=TOKENS, table=(27, HIDDEN), scale=0.1)
    tensors["backbone.vocab_embed.weight.weight"] = tensors.pop("backbone.vocab_embed.embedding")
    save_file(tensors | {"wrapped_encoder.perm": np.random.default_rng(0).permutation(512)}, file)


def gstar(file):
    """A predictor of the first block beside its denoiser."""
    tensors = mdlm_file(file, vocabulary=TOKENS + 2, scale=0.1)
    plain = {name.removeprefix("backbone."): each for name, each in tensors.items()}
    table = plain.pop("vocab_embed.embedding")
    plain |= {"vocab_embed.embeddings": table[:-1].copy(), "vocab_embed.new_embedding": table[-1:].copy()}
    errors = {name: each for name, each in plain.items() if not name.startswith("blocks.1.")}
    for kind in ("weight", "bias"):
        name = f"output_layer.linear.{kind}"
        errors[name] = plain[name][:1].copy()
        plain |= {name: plain[name][:-1].copy(), f"output_layer.linear_extra.{kind}": plain[name][-1:].copy()}
    denoiser = {f"denoiser.backbone.{name}": each for name, each in plain.items()}
    save_file(denoiser | {f"net.dit.{name}": each for name, each in errors.items()}, file)


def images(file):
    """A small U-Net over two sub-tokens of each color, and a few images of CIFAR-10's format."""
    net = UNet((32, 32, 3), 256, 16, 2, **UNET)
    ids = jnp.zeros((1, 3072 * 2), jnp.int32)
    params = randomized(lambda key: net.init(key, ids), 0.1)["params"]
    tensors = {name: np.ascontiguousarray(each) for name, each in named(params, discrete_unet.names_of(net)).items()}
    save_file(tensors, file)
    (file.parent.parent / "cifar10").mkdir()
    for name in ("data_batch_1", "test_batch"):
        values = np.random.default_rng(0).integers(0, 10, (16, 3073), np.uint8)
        (file.parent.parent / "cifar10" / f"{name}.bin").write_bytes(values.tobytes())


def judge(file):
    gpt2_file(file, vocabulary=TOKENS, context=LENGTH)


# The layout, the checkpoint, and the verbs of the printed commands.
CASES = {
    "MDLM": ("mdlm", mdlm, ("evaluate", "sample")),
    "AR": ("mdlm", autoregressive, ("evaluate", "sample")),
    "Prime": ("prime", prime, ("evaluate", "sample")),
    "Prime-v2": ("prime", prime_v2, ("evaluate", "sample")),
    "G-Star": ("gstar", gstar, ("evaluate", "sample")),
    "Prime on images": ("prime", images, ("sample", "evaluate")),
    "GPT-2": ("gpt2", judge, ("sample",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_printed_commands_use_the_folder(case, sources, tmp_path, monkeypatch, capsys, succeed):
    layout, write, verbs = CASES[case]
    monkeypatch.setattr(discrete_unet, "GROUPS", UNET["groups"])
    monkeypatch.setattr(discrete_unet, "HEAD_CHANNELS", UNET["head_channels"])
    paths = sysconfig.get_paths() | {"stdlib": str(sources)}
    monkeypatch.setattr(sysconfig, "get_paths", lambda *scheme: paths)  # a few packages are packed faster
    folder = tmp_path / "public"
    folder.mkdir()
    write(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_length": LENGTH}))
    tokenizer = {} if case == "Prime on images" else {"tokenizer": str(gpt2_vocabulary(tmp_path / "vocabulary"))}
    # Of binary codes half are no token's, which only trained networks avoid without the filter.
    filtered = {"carry_over": True} if case == "Prime-v2" else {}
    run(layout, str(folder), tmp_path / "converted", **tokenizer, **filtered)
    printed = [
        line.strip() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("python launch")
    ]
    commands = [shlex.split(line)[2:] for line in printed]
    assert [words[0] for words in commands] == list(verbs)
    for words in commands:
        succeed(*words)
    results = [json.loads(path.read_text()) for path in (tmp_path / "runs" / "jobs").glob("*/result.json")]
    assert sorted(each["verb"] for each in results) == sorted(verbs)
    for each in results:
        metrics = {name: value for name, value in each["metrics"].items() if not name.endswith("_sem")}
        values = [value for value in metrics.values() if isinstance(value, float)]
        assert values and np.isfinite(values).all()


def test_the_tensors_of_images_survive_a_round_trip(tmp_path, monkeypatch):
    monkeypatch.setattr(discrete_unet, "GROUPS", UNET["groups"])
    monkeypatch.setattr(discrete_unet, "HEAD_CHANNELS", UNET["head_channels"])
    file = tmp_path / "public" / "model.safetensors"
    file.parent.mkdir()
    images(file)
    sizes, params = discrete_unet.load_unet(file)
    found = named(params, discrete_unet.names_of(UNet(**sizes)))
    for name, value in load_file(file).items():
        np.testing.assert_array_equal(found[name].reshape(value.shape), value)
    assert found.keys() == load_file(file).keys()
