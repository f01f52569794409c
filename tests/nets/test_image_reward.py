"""ImageReward and its checkpoint, compared with PyTorch.

The package of ImageReward does not install beside current libraries. `twin` is the specified architecture in torch.nn,
written for these tests, with the names of the public checkpoint, so that its state_dict() passes the loader. The two
halves are also compared with `BlipVisionModel` and `BlipTextModel` of `transformers`, which are independent.
`RECORDED` has rewards of the twin, and is compared without these packages.
"""

import math
import re
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.convert.image_reward import load_image_reward, name_of
from diffusion.convert.template import core
from diffusion.nets.sd.blip import IMAGE_REWARD, TINY_IMAGE_REWARD
from diffusion.nets.sd.blip_text import TextEncoder
from diffusion.nets.sd.blip_vision import VisionTransformer
from tests.checks import refused
from tests.image_reward_twin import twin
from tests.weights import randomized

NET = TINY_IMAGE_REWARD
RECORDED = [0.3236662, 0.3082887, 0.09190096]


def inputs():
    """Return images, and texts of 9, 5 and 1 tokens."""
    rng = np.random.default_rng(3)
    pixels = rng.normal(size=(3, 32, 32, 3)).astype(np.float32)
    ids = rng.integers(0, NET.text[0], (3, 9)).astype(np.int32)
    mask = (np.arange(9)[None] < np.array([[9], [5], [1]])).astype(np.int32)
    return jnp.asarray(pixels), jnp.asarray(ids), jnp.asarray(mask)


@cache
def params():
    """Return random weights; embeddings of the size of sqrt(epsilon) make the epsilon of norms visible."""
    small = re.compile("patch_embed|cls_token|pos_embed|embeddings'.*'embedding'")

    def scaled(path, leaf):
        return 0.01 * leaf if small.search(jax.tree_util.keystr(path)) else leaf

    return jax.tree_util.tree_map_with_path(scaled, randomized(lambda key: NET.init(key, *inputs()), 0.3))


@cache
def rewards():
    return np.asarray(jax.jit(NET.apply)(params(), *inputs()))


@cache
def tensors():
    """Return the parameters as the named tensors of a checkpoint."""
    named = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params()["params"]):
        keys = tuple(each.key for each in path)
        name, leaf = name_of(keys), np.asarray(leaf)
        for number, value in enumerate(leaf if "{}" in name else leaf[None]):
            if keys[-1] == "kernel":
                value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
            named[name.format(number)] = value
    return named


def close(result, expected, tolerance=1e-5):
    expected = np.asarray(expected)
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() < tolerance * np.abs(expected).max()


def test_rewards_agree_with_recorded_values():
    close(rewards(), RECORDED)


def test_padding_is_not_read_and_texts_and_images_are():
    pixels, ids, mask = inputs()
    apply = jax.jit(NET.apply)
    other = jnp.where(mask == 1, ids, (ids + 1) % NET.text[0])
    np.testing.assert_array_equal(apply(params(), pixels, other, mask), rewards())
    for changed in ((jnp.roll(pixels, 1, axis=0), ids), (pixels, (ids + 1) % NET.text[0])):
        assert np.abs(apply(params(), *changed, mask) - rewards()).min() > 1e-4 * np.abs(rewards()).max()
    np.testing.assert_array_equal(apply(params(), pixels, ids, mask == 1), rewards())


def test_half_precision_parameters_and_products():
    """Parameters in 16 bits are promoted where needed, and gradients reach the pixels."""
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params())
    result = jax.jit(NET.clone(dtype="bfloat16").apply)(half, *inputs())
    assert result.dtype == jnp.float32
    assert np.abs(result - rewards()).max() < 0.1 * np.abs(rewards()).max()
    pixels, *text = inputs()
    apply: Any = NET.apply
    gradient = jax.jit(jax.grad(lambda pixels: jnp.sum(apply(half, pixels, *text))))(pixels)
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).max((1, 2, 3)) > 0).all()


def test_invalid_inputs_raise():
    pixels, ids, mask = inputs()
    with refused(r"pixels: images of 16 x 32, where the network reads 32 x 32"):
        NET.apply(params(), pixels[:, :16], ids, mask)
    long = jnp.zeros((3, NET.text[1] + 1), jnp.int32)
    with refused(r"ids: 41 tokens exceed the network's 40"):
        NET.apply(params(), pixels, long, long)


def test_number_of_parameters():
    """The published 446,665,953 include the two projections of BLIP's contrastive loss, which the reward has not."""
    ids = jnp.zeros((1, 35), jnp.int32)
    shapes = jax.eval_shape(IMAGE_REWARD.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)), ids, ids)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert count == 446_206_689
    assert count + (1024 * 256 + 256) + (768 * 256 + 256) == 446_665_953
    assert core((197, 1024)) == core(shapes["params"]["blip"]["visual_encoder"]["pos_embed"].shape[1:])


def test_the_loader_reads_all_tensors_and_leaves_out_what_the_reward_does_not_read():
    extra = {
        "blip.text_encoder.embeddings.position_ids": np.arange(40)[None],
        "blip.text_encoder.pooler.dense.weight": np.zeros((16, 16)),
        "blip.vision_proj.weight": np.zeros((5, 24)),
        "blip.text_proj.bias": np.zeros(5),
    }
    for named in (tensors(), tensors() | extra):
        loaded = load_image_reward(named, "it.pt", NET)
        assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape and (a == b).all(), loaded, params()))
    half = {name: value.astype(np.float16) for name, value in tensors().items()}
    assert {leaf.dtype for leaf in jax.tree.leaves(load_image_reward(half, "it.pt", NET))} == {np.dtype("float16")}
    missing = tensors() | {}
    del missing["mlp.layers.6.bias"]
    with refused(r"weights: 'it.pt' has no tensor 'mlp.layers.6.bias'"):
        load_image_reward(missing, "it.pt", NET)
    with refused(r"weights: 'it.pt' has 1 tensors that the network does not use, such as 'mlp.layers.8.bias'"):
        load_image_reward(tensors() | {"mlp.layers.8.bias": np.zeros(1)}, "it.pt", NET)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def transformers(torch):
    return pytest.importorskip("transformers")


def channels_first(torch, pixels):
    return torch.tensor(np.moveaxis(np.asarray(pixels), 3, 1).copy())


def test_a_checkpoint_of_a_twin_in_pytorch_gives_equal_rewards(torch):
    """Random weights of PyTorch, saved and read; and our weights, which have to be those of the recorded rewards."""
    torch.manual_seed(0)
    module, (pixels, ids, mask) = twin(torch, NET), inputs()
    arguments = channels_first(torch, pixels), torch.tensor(np.array(ids)), torch.tensor(np.array(mask))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        loaded = load_image_reward({name: value.numpy() for name, value in module.state_dict().items()}, "twin", NET)
        close(np.asarray(jax.jit(NET.apply)(loaded, *inputs())), module(*arguments))
        ours = {name: torch.tensor(np.array(value)) for name, value in tensors().items()}
        left = module.load_state_dict(ours, strict=False)
        assert not left.unexpected_keys
        assert all(re.search("vision_proj|text_proj|position_ids", name) for name in left.missing_keys)
        close(rewards(), module(*arguments))


def renamed(torch, prefix, names):
    """Return the tensors under a prefix with other names."""
    found = {}
    for name, value in tensors().items():
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            for old, new in names.items():
                name = re.sub(old, new, name)
            found[name] = torch.tensor(np.array(value))
    return found


def test_the_vision_transformer_agrees_with_that_of_transformers(torch, transformers):
    image, patch, width, layers, heads = NET.vision
    config = transformers.BlipVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=image,
        patch_size=patch,
        layer_norm_eps=1e-6,
    )
    model = transformers.BlipVisionModel(config).eval()
    names = {
        "^cls_token": "embeddings.class_embedding",
        "^pos_embed": "embeddings.position_embedding",
        r"^patch_embed\.proj": "embeddings.patch_embedding",
        r"^norm\.": "post_layernorm.",
        r"^blocks\.": "encoder.layers.",
        r"\.norm(\d)": r".layer_norm\1",
        r"attn\.proj": "attn.projection",
        r"\.attn\.": ".self_attn.",
    }
    model.load_state_dict(renamed(torch, "blip.visual_encoder.", names))
    pixels, _, _ = inputs()
    result = jax.jit(VisionTransformer(*NET.vision).apply)(
        {"params": params()["params"]["blip"]["visual_encoder"]}, pixels
    )
    with torch.no_grad():
        close(np.asarray(result), model(channels_first(torch, pixels)).last_hidden_state)


def test_the_text_encoder_agrees_with_that_of_transformers(torch, transformers):
    """Hidden states at padding are compared as well."""
    vocabulary, context, width, layers, heads = NET.text
    config = transformers.BlipTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        encoder_hidden_size=NET.vision[2],
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=context,
        bos_token_id=1,
        sep_token_id=2,
    )
    from transformers.models.blip.modeling_blip_text import BlipTextModel  # pyright: ignore[reportMissingImports]

    model = BlipTextModel(config, add_pooling_layer=False).eval()
    model.load_state_dict(renamed(torch, "blip.text_encoder.", {}), strict=True)
    _, ids, mask = inputs()
    image = jnp.asarray(np.random.default_rng(4).normal(size=(3, 7, NET.vision[2])), jnp.float32)
    encoder = TextEncoder(*NET.text)
    result = jax.jit(encoder.apply)({"params": params()["params"]["blip"]["text_encoder"]}, ids, mask, image)
    with torch.no_grad():
        expected = model(
            torch.tensor(np.array(ids)),
            attention_mask=torch.tensor(np.array(mask)),
            encoder_hidden_states=torch.tensor(np.array(image)),
            is_decoder=False,
        ).last_hidden_state
    close(np.asarray(result), expected)
