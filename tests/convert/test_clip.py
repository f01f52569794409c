"""Checkpoints of CLIP in their public layouts, and outputs compared with transformers and OpenCLIP."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from diffusion.convert import clip as convert
from diffusion.nets.sd.aesthetic import Aesthetic
from diffusion.nets.sd.clip import TINY_CLIP, TINY_TEXT, TINY_VISION
from tests.checkpoints import tensors_by
from tests.checks import refused
from tests.weights import randomized

IDS = np.random.default_rng(0).integers(1, 98, (2, 11))
IDS[0, 6:], IDS[1, 10:] = 98, 98  # the end of the text, and padding
PIXELS = np.random.default_rng(1).normal(size=(2, 24, 24, 3)).astype(np.float32)
INPUTS = (jnp.asarray(PIXELS), jnp.asarray(IDS, jnp.int32))


@functools.cache
def params():
    """Parameters of both encoders, with scales and biases of norms away from 1 and 0."""
    return randomized(lambda key: TINY_CLIP.init(key, *INPUTS))["params"]


@functools.cache
def hugging_face():
    """A file of both encoders in Hugging Face's layout."""
    return tensors_by(convert.name_of, params())


def open_clip_layout():
    """The same tensors in OpenCLIP's layout, written out by hand."""
    source = hugging_face()
    towers = {"": ("text_model.", 3), "visual.": ("vision_model.", 2)}
    tensors = {
        "positional_embedding": source["text_model.embeddings.position_embedding.weight"],
        "token_embedding.weight": source["text_model.embeddings.token_embedding.weight"],
        "text_projection": source["text_projection.weight"].T,
        "logit_scale": np.float32(4.6),
        "visual.class_embedding": source["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": source["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": source["vision_model.embeddings.patch_embedding.weight"],
        "visual.proj": source["visual_projection.weight"].T,
    }
    norms = {"ln_final": "text_model.final_layer_norm", "visual.ln_pre": "vision_model.pre_layrnorm"}
    norms["visual.ln_post"] = "vision_model.post_layernorm"
    for prefix, (tower, layers) in towers.items():
        for layer in range(layers):
            ours, theirs = f"{prefix}transformer.resblocks.{layer}.", f"{tower}encoder.layers.{layer}."
            norms |= {f"{ours}ln_{number}": f"{theirs}layer_norm{number}" for number in (1, 2)}
            norms |= {f"{ours}mlp.c_fc": f"{theirs}mlp.fc1", f"{ours}mlp.c_proj": f"{theirs}mlp.fc2"}
            norms[f"{ours}attn.out_proj"] = f"{theirs}self_attn.out_proj"
            for kind in ("weight", "bias"):
                parts = [source[f"{theirs}self_attn.{part}_proj.{kind}"] for part in "qkv"]
                tensors[f"{ours}attn.in_proj_{kind}"] = np.concatenate(parts)
    return tensors | {f"{a}.{kind}": source[f"{b}.{kind}"] for a, b in norms.items() for kind in ("weight", "bias")}


def bare(prefix):
    """The tensors of one encoder, as a file of this encoder alone without its prefix."""
    return {name.removeprefix(prefix): value for name, value in hugging_face().items() if name.startswith(prefix)}


def assert_equal(loaded, expected):
    jax.tree.map(np.testing.assert_array_equal, loaded, {"params": dict(expected)})


def with_prefix(tensors, prefix):
    return {prefix + name: value for name, value in tensors.items()}


def test_both_layouts_give_the_same_parameters():
    buffers = {"logit_scale": np.float32(4.6), "text_model.embeddings.position_ids": np.arange(11)[None]}
    files = {
        "hugging_face": hugging_face() | buffers,
        "open_clip": open_clip_layout(),
        "hps": {"state_dict": with_prefix(open_clip_layout(), "module."), "epoch": 3},
    }
    for name, tensors in files.items():
        assert_equal(convert.load_clip(TINY_CLIP, tensors, name), params())
        assert_equal(convert.load_clip_text(TINY_TEXT, tensors, name), params()["text_model"])
        assert_equal(convert.load_clip_vision(TINY_VISION, tensors, name), params()["vision_model"])


def test_the_prefix_of_a_single_encoder_may_be_absent():
    without = {key: value for key, value in params()["text_model"].items() if key != "text_projection"}
    net = TINY_TEXT.clone(projection=None)
    for tensors in (bare("text_model."), with_prefix(bare("text_model."), "text_model."), hugging_face()):
        assert_equal(convert.load_clip_text(net, tensors, "file"), without)
    vision = bare("vision_model.") | {"embeddings.position_ids": np.arange(10)[None]}
    vision["visual_projection.weight"] = hugging_face()["visual_projection.weight"]
    assert_equal(convert.load_clip_vision(TINY_VISION, vision, "file"), params()["vision_model"])


def test_types_are_kept():
    for dtype in (np.float16, ml_dtypes.bfloat16):
        tensors = {name: value.astype(dtype) for name, value in open_clip_layout().items()}
        loaded = convert.load_clip(TINY_CLIP, tensors, "file")
        assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype(dtype)}
        score = jax.jit(TINY_CLIP.apply)(loaded, *INPUTS)
        assert score.dtype == jnp.float32
        np.testing.assert_allclose(score, TINY_CLIP.apply({"params": params()}, *INPUTS), atol=0.1)


def test_wrong_files_are_refused():
    tensors = open_clip_layout()
    with refused("'hps.pt' has no tensor 'visual_projection.weight'"):
        partial = {name: value for name, value in tensors.items() if name != "visual.proj"}
        convert.load_clip(TINY_CLIP, partial, "hps.pt")
    with refused("'text.safetensors' has 1 tensors .* such as 'text_model.embeddings.more'"):
        convert.load_clip_text(TINY_TEXT, hugging_face() | {"text_model.embeddings.more": IDS}, "text.safetensors")
    with refused("3 tensors that the network does not use, such as 'text_model.encoder.layers.3.other.weight'"):
        extra = {f"transformer.resblocks.{number}.other.weight": IDS for number in (3, 4, 5)}
        convert.load_clip(TINY_CLIP, tensors | extra, "hps.pt")
    with refused("'text_projection.weight' of 'x' has shape .* is it this size of model"):
        convert.load_clip_text(TINY_TEXT.clone(projection=7), tensors, "x")


def test_the_aesthetic_head_is_linear():
    rng = np.random.default_rng(0)
    widths = dict(zip((0, 2, 4, 6, 7), ((24, 1024), (1024, 128), (128, 64), (64, 16), (16, 1)), strict=True))
    tensors, expected = {}, rng.normal(size=(3, 24)).astype(np.float32)
    features = jnp.asarray(expected)
    for number, (inputs, outputs) in widths.items():
        weight, bias = (rng.normal(size=size).astype(np.float32) for size in ((outputs, inputs), outputs))
        tensors |= {f"layers.{number}.weight": weight, f"layers.{number}.bias": bias}
        expected = expected @ weight.T + bias
    loaded = convert.load_aesthetic(tensors, "file", width=24)
    np.testing.assert_allclose(Aesthetic().apply(loaded, features), expected[:, 0], rtol=1e-4)


# Parity with the networks of other libraries, which are optional packages.

TEXT_SIZES = dict(vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4)
TEXT_SIZES |= dict(max_position_embeddings=11, projection_dim=24, bos_token_id=97, eos_token_id=98, pad_token_id=98)
VISION_SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
VISION_SIZES |= dict(image_size=24, patch_size=8, projection_dim=24)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is an optional dependency: pip install torch")


@pytest.fixture(scope="module")
def transformers(torch):
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def open_clip(torch):
    return pytest.importorskip("open_clip")


def close(result, expected, tolerance=1e-5):
    expected = expected.detach().numpy()
    error = np.abs(np.asarray(result) - expected).max() / np.abs(expected).max()
    assert result.shape == expected.shape and error < tolerance, error


def loaded_into(torch, model):
    """The model with the tensors of `hugging_face`, and its state, which it may name differently."""
    tensors = {name: torch.tensor(value) for name, value in hugging_face().items()}
    own = model.state_dict()
    prefix = "" if any(name.startswith(("text_model.", "vision_model.")) for name in own) else "text_model."
    model.load_state_dict({name: tensors.get(prefix + name, value) for name, value in own.items()})
    return model.eval(), {name: value.numpy() for name, value in model.state_dict().items()}


def torch_ids(torch):
    return torch.tensor(IDS)


def torch_pixels(torch):
    return torch.tensor(np.moveaxis(PIXELS, 3, 1).copy())


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_text_encoders_agree_with_transformers(activation, torch, transformers):
    config = transformers.CLIPTextConfig(**TEXT_SIZES, hidden_act=activation)
    for kind, projection in (("CLIPTextModel", None), ("CLIPTextModelWithProjection", 24)):
        model, state = loaded_into(torch, getattr(transformers, kind)(config))
        expected = model(torch_ids(torch), output_hidden_states=True)
        net = TINY_TEXT.clone(projection=projection, activation=activation)
        result = jax.jit(net.apply)(convert.load_clip_text(net, state, kind), INPUTS[1])
        close(result.hidden, expected.last_hidden_state)
        close(result.penultimate, expected.hidden_states[-2])
        close(result.pooled, expected.pooler_output if projection is None else expected.text_embeds)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_image_encoders_agree_with_transformers(activation, torch, transformers):
    config = transformers.CLIPVisionConfig(**VISION_SIZES, hidden_act=activation)
    model, state = loaded_into(torch, transformers.CLIPVisionModelWithProjection(config))
    net = TINY_VISION.clone(activation=activation)
    result = jax.jit(net.apply)(convert.load_clip_vision(net, state, "file"), INPUTS[0])
    close(result, model(torch_pixels(torch)).image_embeds)


def test_scores_agree_with_transformers(torch, transformers):
    config = transformers.CLIPConfig(text_config=TEXT_SIZES, vision_config=VISION_SIZES, projection_dim=24)
    model, state = loaded_into(torch, transformers.CLIPModel(config))
    expected = model(input_ids=torch_ids(torch), pixel_values=torch_pixels(torch))
    net, loaded = TINY_CLIP, convert.load_clip(TINY_CLIP, state, "file")
    close(net.apply(loaded, INPUTS[0], method="image_features"), expected.image_embeds)
    close(net.apply(loaded, INPUTS[1], method="text_features"), expected.text_embeds)
    close(net.apply(loaded, *INPUTS), expected.logits_per_image.diagonal() / model.logit_scale.exp())


@pytest.mark.parametrize("quick", [True, False], ids=["quick_gelu", "gelu"])
def test_scores_agree_with_open_clip(quick, torch, open_clip):
    vision = open_clip.CLIPVisionCfg(layers=2, width=32, head_width=8, mlp_ratio=2.0, patch_size=8, image_size=24)
    text = open_clip.CLIPTextCfg(context_length=11, vocab_size=99, width=32, heads=4, layers=3, mlp_ratio=2.0)
    model = open_clip.CLIP(24, vision, text, quick_gelu=quick).eval()
    model.load_state_dict({name: torch.tensor(value) for name, value in open_clip_layout().items()})
    images, texts, _ = model(torch_pixels(torch), torch_ids(torch))
    activation = "quick_gelu" if quick else "gelu"
    net = TINY_CLIP.clone(
        text_model=TINY_TEXT.clone(activation=activation), vision_model=TINY_VISION.clone(activation=activation)
    )
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    loaded = convert.load_clip(net, state, "file")
    close(net.apply(loaded, INPUTS[0], method="image_features"), images)
    close(net.apply(loaded, INPUTS[1], method="text_features"), texts)
    close(net.apply(loaded, *INPUTS), (images * texts).sum(-1))
