"""Converted checkpoints, compared with the logits of PyTorch (law 10), and errors of invalid files."""

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

torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency: pip install torch")

import safetensors.torch  # noqa: E402

from experiments.benchmarks import torch_reference as reference  # noqa: E402

VOCAB, LENGTH, SIZES = 23, 9, dict(hidden=32, blocks=3, heads=4)
TOKENS = np.random.default_rng(0).integers(0, VOCAB, (2, LENGTH))
SIGMA = np.array([0.0, 1.3], np.float32)


def torch_model(**options):
    torch.manual_seed(0)
    return reference.perturb(reference.DiT(VOCAB, **SIZES, cond_dim=16, **options)).eval()


@pytest.fixture(scope="module")
def mdlm():
    return torch_model()


def backbone(model):
    return {f"backbone.{name}": value.contiguous() for name, value in model.state_dict().items()}


def logits_of(model, *inputs):
    with torch.no_grad():
        return model(*map(torch.from_numpy, inputs)).numpy()


def assert_same_logits(path, model):
    sizes, params = load_mdlm(path, heads=4)
    assert sizes["hidden"] == 32 and sizes["blocks"] == 3 and sizes["vocab_size"] == VOCAB
    mask = Full() if sizes["adaln"] else Causal()
    actual = jax.jit(DiT(**sizes, mask=mask).apply)(params, jnp.asarray(TOKENS), jnp.asarray(SIGMA))
    expected = logits_of(model, TOKENS, SIGMA)
    assert np.abs(expected).max() > 1, "the comparison must not be of zeros"
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_mdlm_safetensors(mdlm, tmp_path):
    safetensors.torch.save_file(backbone(mdlm), tmp_path / "model.safetensors")
    assert "backbone.rotary_emb.inv_freq" in backbone(mdlm), "the file contains the buffer that conversion drops"
    assert_same_logits(tmp_path, mdlm)


def test_mdlm_autoregressive_baseline(tmp_path):
    model = torch_model(causal=True, adaln=False)
    safetensors.torch.save_file(backbone(model), tmp_path / "ar.safetensors")
    sizes, _ = load_mdlm(tmp_path / "ar.safetensors", heads=4)
    assert not sizes["adaln"]
    assert_same_logits(tmp_path / "ar.safetensors", model)


class Configuration:
    """A configuration object like those that training code stores in checkpoints."""

    def __init__(self):
        self.nested = {"length": 8}


def test_lightning_checkpoint_prefers_the_average_and_runs_no_code(mdlm, tmp_path):
    other = reference.perturb(torch_model(), seed=5)
    checkpoint = {
        "state_dict": backbone(other),
        "ema": {"decay": 0.9999, "num_updates": 3, "shadow_params": [p.detach() for p in mdlm.parameters()]},
        "hyper_parameters": {"config": Configuration()},
    }
    path = tmp_path / "last.ckpt"
    torch.save(checkpoint, path)
    assert_same_logits(path, mdlm)
    del checkpoint["ema"]
    torch.save(checkpoint, path)
    assert_same_logits(path, other)


class Malicious:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_checkpoint_cannot_run_code(mdlm, tmp_path):
    path = tmp_path / "bad.pt"
    torch.save({"state_dict": backbone(mdlm), "extra": Malicious()}, path)
    assert_same_logits(path, mdlm)


def test_half_precision_checkpoint(mdlm, tmp_path):
    half = {name: value.to(torch.bfloat16) for name, value in backbone(mdlm).items()}
    safetensors.torch.save_file(half, tmp_path / "half.safetensors")
    _, params = load_mdlm(tmp_path / "half.safetensors", heads=4)
    expected = half["backbone.vocab_embed.embedding"].float().numpy()
    np.testing.assert_array_equal(params["params"]["embedding"], expected)


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_gpt2(prefix, tmp_path):
    torch.manual_seed(0)
    model = reference.perturb(reference.GPT2(vocab_size=VOCAB, context=12, **SIZES)).eval()
    state = {prefix + name: value.contiguous() for name, value in model.state_dict().items()}
    # Public files also contain causal masks and, sometimes, the tied output layer.
    state |= {f"{prefix}h.{index}.attn.bias": torch.ones(1, 1, 12, 12) for index in range(3)}
    state |= {"lm_head.weight": state[f"{prefix}wte.weight"].clone()} if prefix else {}
    path = tmp_path / ("pytorch_model.bin" if prefix else "model.safetensors")
    torch.save(state, path) if prefix else safetensors.torch.save_file(state, path)
    sizes, params = load_gpt2(tmp_path, heads=4)
    assert sizes["context"] == 12 and sizes["blocks"] == 3
    actual = jax.jit(GPT2(**sizes).apply)(params, jnp.asarray(TOKENS))
    np.testing.assert_allclose(actual, logits_of(model, TOKENS), atol=1e-4)


def test_errors_name_the_tensor(mdlm, tmp_path):
    path = tmp_path / "model.safetensors"

    def refused(match, state, load=load_mdlm):
        safetensors.torch.save_file(state, path)
        with pytest.raises(ValueError, match=match):
            load(path, heads=4)

    state = backbone(mdlm)
    refused(r"1 tensors were not used \(more\)", state | {"backbone.more": torch.ones(2)})
    refused("missing", {k: v for k, v in state.items() if k != "backbone.blocks.1.mlp.2.bias"})
    refused("not used", {k: v for k, v in state.items() if k != "backbone.blocks.1.attn_qkv.weight"})
    refused("has shape", state | {"backbone.output_layer.linear.bias": torch.ones(VOCAB + 1)})
    refused("'wte.weight' is missing", state, load=load_gpt2)


def test_unreadable_files_raise_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_tensors(tmp_path / "none.pt")
    with pytest.raises(FileNotFoundError, match="neither"):
        read_tensors(tmp_path)
    for name in ("broken.safetensors", "broken.ckpt", "weights.h5"):
        path = tmp_path / name
        path.write_bytes(b"\x80\x04junk that is no checkpoint")
        with pytest.raises(ValueError, match="checkpoint: "):
            read_tensors(path)


def test_average_of_another_length_raises(mdlm, tmp_path):
    checkpoint = {"state_dict": backbone(mdlm), "ema": {"shadow_params": [torch.ones(3)]}}
    torch.save(checkpoint, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="1 averaged tensors"):
        read_tensors(tmp_path / "last.ckpt")
