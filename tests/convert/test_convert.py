"""Converted checkpoints, compared with the logits of PyTorch (law 10), and errors of invalid files."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.convert.files import read_tensors
from diffusion.convert.gpt2 import load_gpt2
from diffusion.convert.mdlm import load_mdlm
from diffusion.nets.attention_masks import Causal, Full
from diffusion.nets.dit import DiT
from diffusion.nets.gpt2 import GPT2
from tests.checks import refused

torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency: pip install torch")

import safetensors.torch  # noqa: E402

from experiments.benchmarks import torch_reference as reference  # noqa: E402

VOCAB, SIZES = 23, dict(hidden=16, blocks=2, heads=2)
TOKENS = np.random.default_rng(0).integers(0, VOCAB, (2, 9))
SIGMA = np.array([0.0, 1.3], np.float32)


def torch_model(kind=reference.DiT, **options):
    torch.manual_seed(0)
    return reference.perturb(kind(vocab_size=VOCAB, **SIZES, **options)).eval()


@pytest.fixture(scope="module")
def mdlm():
    return torch_model(cond_dim=16)


def backbone(model):
    return {f"backbone.{name}": value.contiguous() for name, value in model.state_dict().items()}


def save(path, state):
    safetensors.torch.save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@functools.cache
def compiled(model):
    return jax.jit(model.apply)


def assert_same_logits(model, params, torch_model, *inputs):
    actual = compiled(model)(params, *map(jnp.asarray, inputs))
    with torch.no_grad():
        expected = torch_model(*map(torch.from_numpy, inputs)).numpy()
    assert np.abs(expected).max() > 1, "the comparison must not be of zeros"
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def check_mdlm(path, torch_model, causal=False):
    sizes, params = load_mdlm(path, heads=2)
    assert sizes.items() >= (SIZES | {"vocab_size": VOCAB, "adaln": not causal}).items()
    assert_same_logits(DiT(**sizes, mask=Causal() if causal else Full()), params, torch_model, TOKENS, SIGMA)


def test_mdlm_safetensors(mdlm, tmp_path):
    state = backbone(mdlm)
    assert "backbone.rotary_emb.inv_freq" in state, "the file contains the buffer that conversion drops"
    save(tmp_path / "model.safetensors", state)
    check_mdlm(tmp_path, mdlm)
    half = {name: value.to(torch.bfloat16) for name, value in state.items()}
    _, params = load_mdlm(save(tmp_path / "half.safetensors", half), heads=2)
    expected = half["backbone.vocab_embed.embedding"].float().numpy()
    np.testing.assert_array_equal(params["params"]["embedding"], expected)


def test_mdlm_autoregressive_baseline(tmp_path):
    model = torch_model(cond_dim=16, causal=True, adaln=False)
    check_mdlm(save(tmp_path / "ar.safetensors", backbone(model)), model, causal=True)


class Configuration:
    """A configuration object like those that training code stores in checkpoints."""

    def __init__(self):
        self.nested = {"length": 8}


class Malicious:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_lightning_checkpoint_prefers_the_average_and_runs_no_code(mdlm, tmp_path):
    other = reference.perturb(torch_model(cond_dim=16), seed=5)
    checkpoint = {
        "state_dict": backbone(other),
        "ema": {"decay": 0.9999, "num_updates": 3, "shadow_params": [p.detach() for p in mdlm.parameters()]},
        "hyper_parameters": {"config": Configuration(), "extra": Malicious()},
    }
    check_mdlm(save(tmp_path / "last.ckpt", checkpoint), mdlm)
    del checkpoint["ema"]
    check_mdlm(save(tmp_path / "last.ckpt", checkpoint), other)
    checkpoint["ema"] = {"shadow_params": [torch.ones(3)]}
    with refused("1 averaged tensors"):
        read_tensors(save(tmp_path / "last.ckpt", checkpoint))


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_gpt2(prefix, tmp_path):
    model = torch_model(reference.GPT2, context=12)
    state = {prefix + name: value.contiguous() for name, value in model.state_dict().items()}
    # Public files also contain causal masks and, sometimes, the tied output layer.
    state |= {f"{prefix}h.{index}.attn.bias": torch.ones(1, 1, 12, 12) for index in range(2)}
    state |= {"lm_head.weight": state[f"{prefix}wte.weight"].clone()} if prefix else {}
    save(tmp_path / ("pytorch_model.bin" if prefix else "model.safetensors"), state)
    sizes, params = load_gpt2(tmp_path, heads=2)
    assert sizes == SIZES | {"vocab_size": VOCAB, "context": 12}
    assert_same_logits(GPT2(**sizes), params, model, TOKENS)


def test_errors_name_the_tensor(mdlm, tmp_path):
    state = backbone(mdlm)

    def without(name):
        return {key: value for key, value in state.items() if key != f"backbone.blocks.1.{name}"}

    for message, changed, load in (
        (r"1 tensors were not used \(more\)", state | {"backbone.more": torch.ones(2)}, load_mdlm),
        ("missing", without("mlp.2.bias"), load_mdlm),
        ("not used", without("attn_qkv.weight"), load_mdlm),
        ("has shape", state | {"backbone.output_layer.linear.bias": torch.ones(VOCAB + 1)}, load_mdlm),
        ("'wte.weight' is missing", state, load_gpt2),
    ):
        with refused(message):
            load(save(tmp_path / "model.safetensors", changed), heads=2)


def test_unreadable_files_raise_one_line(tmp_path):
    with refused("does not exist", FileNotFoundError):
        read_tensors(tmp_path / "none.pt")
    with refused("neither", FileNotFoundError):
        read_tensors(tmp_path)
    for name in ("broken.safetensors", "broken.ckpt", "weights.h5"):
        (tmp_path / name).write_bytes(b"\x80\x04junk that is no checkpoint")
        with refused("checkpoint: "):
            read_tensors(tmp_path / name)
