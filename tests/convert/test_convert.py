"""Converted checkpoints, compared with the logits of PyTorch (law 10), and errors of invalid files."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.convert import discrete_unet
from diffusion.convert.files import read_tensors
from diffusion.convert.gpt2 import load_gpt2
from diffusion.convert.mdlm import load_mdlm
from diffusion.nets.attention_masks import Causal, Full
from diffusion.nets.dit import DiT
from diffusion.nets.error_predictor import ErrorPredictor
from diffusion.nets.gpt2 import GPT2
from diffusion.nets.subtoken_embedding import SubtokenEmbedding
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
    sizes, params, *_ = load_mdlm(path)
    assert sizes.items() >= (SIZES | {"vocab_size": VOCAB, "adaln": not causal}).items()
    net = DiT(**sizes, mask=Causal() if causal else Full())
    assert_same_logits(net, {"params": params}, torch_model, TOKENS, SIGMA)


def test_mdlm_safetensors(mdlm, tmp_path):
    state = backbone(mdlm)
    assert "backbone.rotary_emb.inv_freq" in state, "the file contains the buffer that conversion drops"
    save(tmp_path / "model.safetensors", state)
    check_mdlm(tmp_path, mdlm)
    half = {name: value.to(torch.bfloat16) for name, value in state.items()}
    params = load_mdlm(save(tmp_path / "half.safetensors", half)).params
    expected = half["backbone.vocab_embed.embedding"].float().numpy()
    np.testing.assert_array_equal(params["embedding"], expected)


def test_mdlm_autoregressive_baseline(tmp_path):
    model = torch_model(cond_dim=16, causal=True, adaln=False)
    check_mdlm(save(tmp_path / "ar.safetensors", backbone(model)), model, causal=True)


class Subtokens(torch.nn.Module):
    """MDM-Prime's l sub-tokens of a token, from one table or one for each place, side by side or summed."""

    def __init__(self, base, digits, merge, shared):
        super().__init__()
        self.offsets = torch.zeros(digits, dtype=torch.long) if shared else (base + 1) * torch.arange(digits)
        rows, width = (base + 1) * (1 if shared else digits), SIZES["hidden"] // (digits if merge == "concat" else 1)
        self.embedding, self.merge = torch.nn.Parameter(torch.randn(rows, width)), merge

    def forward(self, state):
        parts = self.embedding[state.view(len(state), -1, len(self.offsets)) + self.offsets]
        return parts.flatten(2) if self.merge == "concat" else parts.sum(2)


# 23 tokens are two digits of base 5, or five of base 2.
EMBEDDINGS = {
    "prime": (dict(base=5, digits=2, merge="concat", shared=True), "vocab_embed.embedding"),
    "v2": (dict(base=2, digits=5, merge="sum", shared=False), "vocab_embed.weight.weight"),
}


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_sub_tokens_of_prime(kind, tmp_path):
    options, name = EMBEDDINGS[kind]
    model = torch_model(cond_dim=16)
    model.vocab_embed, positions = Subtokens(**options), model.rotary_emb.forward
    model.rotary_emb.forward = lambda length: positions(length // options["digits"])  # of tokens
    state = backbone(model)
    state[f"backbone.{name}"] = state.pop("backbone.vocab_embed.embedding")
    permutation = torch.randperm(32)
    if kind == "v2":  # the codec is part of the module, before the network
        state = {"wrapped_encoder.lookup_table": torch.ones(32, 5), "wrapped_encoder.perm": permutation} | state
    found = load_mdlm(save(tmp_path / "prime.ckpt", {"state_dict": state}))
    assert found.sizes.items() >= (options | SIZES).items()
    if kind == "v2":
        np.testing.assert_array_equal(found.permutation, permutation.numpy())
    embedder = SubtokenEmbedding(hidden=SIZES["hidden"], **options)
    net = DiT(**{name: size for name, size in found.sizes.items() if name not in options}, embedder=embedder)
    noisy = np.random.default_rng(0).integers(0, options["base"] + 1, (2, 4 * options["digits"]))
    assert_same_logits(net, {"params": found.params}, model, noisy, SIGMA)


class Predictor(reference.DiT):
    """G-Star's predictor: MDLM's network with one output per position, at the noise level 0."""

    def __init__(self, blocks):
        super().__init__(vocab_size=VOCAB, **(SIZES | {"blocks": blocks}), cond_dim=16)
        self.output_layer = reference.Head(SIZES["hidden"], 1, 16, True)


def gstar_names(state):
    """Return a state with G-Star's names of the embedding, whose last row is a tensor of its own, as in the head."""
    parts = {"vocab_embed.embedding": ("vocab_embed.embeddings", "vocab_embed.new_embedding")}
    if len(state["output_layer.linear.bias"]) > 1:
        for kind in ("weight", "bias"):
            parts[f"output_layer.linear.{kind}"] = tuple(
                f"output_layer.{name}.{kind}" for name in ("linear", "linear_extra")
            )
    state = dict(state)
    for name, (first, last) in parts.items():
        value = state.pop(name)
        state |= {first: value[:-1].clone(), last: value[-1:].clone()}
    return state


@pytest.mark.parametrize("kind", ["full", "block", "head"])
def test_gstar_predictor(kind, mdlm, tmp_path):
    model = torch_model(lambda **sizes: Predictor(1 if kind == "block" else SIZES["blocks"]))
    reference.perturb(model, seed=1)
    if kind == "head":
        trunk = {name: each for name, each in mdlm.state_dict().items() if not name.startswith("output_layer")}
        model.load_state_dict(model.state_dict() | trunk)
    errors = gstar_names(model.state_dict())
    state = {f"denoiser.backbone.{name}": each for name, each in gstar_names(mdlm.state_dict()).items()}
    own = {f"net.{name}": each for name, each in errors.items() if name.startswith("output_layer")}
    path = save(tmp_path / "last.ckpt", {"state_dict": state | own | {f"net.dit.{n}": v for n, v in errors.items()}})
    found = load_mdlm(path)
    assert found.kind == kind and found.sizes.items() >= SIZES.items()
    predictor = ErrorPredictor(kind, DiT(**found.sizes))
    logits = jax.jit(predictor)(found.params["denoiser"], found.params["errors"], jnp.asarray(TOKENS))
    with torch.no_grad():
        expected = model(torch.from_numpy(TOKENS), torch.zeros(2))[..., 0].numpy()
    assert np.abs(expected).max() > 0.3
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    if kind == "full":  # beside another denoiser, such as the average of a public checkpoint
        assert_same_logits(DiT(**found.sizes), {"params": found.params["denoiser"]}, mdlm, TOKENS, SIGMA)
        other = save(tmp_path / "mdlm.safetensors", backbone(mdlm))
        np.testing.assert_array_equal(
            load_mdlm(path, denoiser=other).params["denoiser"]["embedding"], found.params["denoiser"]["embedding"]
        )
        # Where the table has another name than the code's, a file without its rows is refused, and not left random.
        wrong = state | {
            "denoiser.backbone.vocab_embed.embedding": state.pop("denoiser.backbone.vocab_embed.embeddings")
        }
        wrong = {name: each for name, each in wrong.items() if not name.endswith("vocab_embed.embeddings")}
        with refused("not fit"):
            load_mdlm(save(tmp_path / "wrong.ckpt", wrong | {f"net.dit.{n}": v for n, v in errors.items()}))


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

    frequencies = {"backbone.rotary_emb.inv_freq": torch.ones(4)}
    for message, changed, load in (
        (
            "1 tensors that the network does not use, such as 'more'",
            state | {"backbone.more": torch.ones(2)},
            load_mdlm,
        ),
        ("1 tensors that the network does not use, such as 'more'", state | {"more": torch.ones(2)}, load_mdlm),
        ("has no tensor 'blocks.1.mlp.2.bias'", without("mlp.2.bias"), load_mdlm),
        ("does not use", without("attn_qkv.weight"), load_mdlm),
        ("has shape", state | {"backbone.output_layer.linear.bias": torch.ones(VOCAB + 1)}, load_mdlm),
        ("inv_freq of '.*' is not", state | frequencies, load_mdlm),
        ("has no tensor 'wte.weight'", state, load_gpt2),
        ("has no tensor 'pixel_embedding", state, lambda path, heads: discrete_unet.load_unet(path)),
    ):
        with refused(message):
            load(save(tmp_path / "model.safetensors", changed), heads=2)
    with refused("--heads: 4 heads do not fit '.*' of width 16; pass 2"):
        load_mdlm(save(tmp_path / "model.safetensors", state), heads=4)
    state.pop("backbone.rotary_emb.inv_freq")
    with refused("--heads: '.*' does not say how many; pass --heads=1"):
        load_mdlm(save(tmp_path / "model.safetensors", state))
    (tmp_path / "config.json").write_text('{"n_heads": 2}')
    assert load_mdlm(save(tmp_path / "model.safetensors", state)).sizes["heads"] == 2


def test_unreadable_files_raise_one_line(tmp_path):
    with refused("does not exist", FileNotFoundError):
        read_tensors(tmp_path / "none.pt")
    with refused("neither", FileNotFoundError):
        read_tensors(tmp_path)
    for name in ("broken.safetensors", "broken.ckpt", "weights.h5"):
        (tmp_path / name).write_bytes(b"\x80\x04junk that is no checkpoint")
        with refused("checkpoint: "):
            read_tensors(tmp_path / name)
