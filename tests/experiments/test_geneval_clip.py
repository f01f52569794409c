"""GenEval's CLIP: images as Pillow resizes them, features of any number of images, and real weights from a folder."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("diffusion.convert.clip", reason="the encoders of CLIP are not in this tree")

from diffusion.nets.sd.preprocessing import preprocess
from experiments.geneval import clip
from experiments.geneval.colors import color_classifier
from tests.checks import refused

RNG = np.random.default_rng(0)
CROPS = [RNG.integers(0, 256, (high, wide, 3), dtype=np.uint8) for high, wide in ((40, 30), (5, 9), (1, 1), (64, 24))]


@pytest.fixture(scope="module")
def tiny():
    return clip.load_clip("random")


def test_pixels_are_those_of_the_reward_models():
    """Pillow rounds its kernel to 22 bits, so that a value may be another level, 1/255 over the deviation away."""
    resize = jax.jit(partial(preprocess, eight_bit=True), static_argnums=1)
    for image, size in zip(CROPS, (224, 24, 24, 24), strict=True):
        found = clip.pixels(image, size)
        wanted = np.asarray(resize(jnp.asarray(image / 255.0, jnp.float32)[None], size))[0]
        assert found.shape == (size, size, 3) and found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=1.01 / 255 / 0.26)
        assert np.mean(np.abs(found - wanted) > 1e-4) < 0.01


def test_features_do_not_depend_on_the_batch(tiny):
    images, texts = tiny
    whole = images([*CROPS, CROPS[0]])
    assert whole.shape == (5, 24)
    for index in range(5):
        np.testing.assert_allclose(images([[*CROPS, CROPS[0]][index]])[0], whole[index], atol=1e-5)
    both = texts(["a photo of a red dog", "a photo of a blue dog"])
    np.testing.assert_allclose(texts(["a photo of a blue dog"])[0], both[1], atol=1e-5)
    assert np.abs(both[0] - both[1]).max() > 1e-3


def test_random_colors_repeat(tiny):
    assert np.array_equal(tiny[0](CROPS), clip.load_clip("random")[0](CROPS))
    assert callable(color_classifier(*tiny))


def tokenizer_files(folder):
    """A vocabulary of the bytes of a few words, without merges."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def test_weights_and_tokens_come_from_the_folder(monkeypatch, tmp_path):
    """With the tiny encoders in place of ViT-L/14, in the names of their published files."""
    safetensors = pytest.importorskip("safetensors.numpy")
    from diffusion.convert.clip import name_of

    net = clip.TINY_CLIP.clone(text_model=clip.TINY_CLIP.text_model.clone(length=77))
    monkeypatch.setattr(clip, "CLIP_L", net)
    monkeypatch.setattr(clip, "TINY_CLIP", net)
    params = clip.random_params(1)
    tensors = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params["params"]):
        keys, value = tuple(each.key for each in path), np.asarray(leaf)
        name, kernel = name_of(keys), keys[-1] == "kernel"
        for number, each in enumerate(value if "{}" in name else value[None]):
            moved = each.transpose(3, 2, 0, 1) if each.ndim == 4 else each.T if kernel else each
            tensors[name.format(number)] = np.ascontiguousarray(moved)
    safetensors.save_file(tensors, tmp_path / "model.safetensors")
    tokenizer_files(tmp_path)
    images, texts = clip.load_clip(str(tmp_path))
    size = net.vision_model.image
    pixels = jnp.stack([clip.pixels(image, size) for image in CROPS])
    of_images = partial(jax.jit(partial(net.apply, method="image_features")), params)
    of_texts = partial(jax.jit(partial(net.apply, method="text_features")), params)
    np.testing.assert_allclose(images(CROPS), of_images(pixels), atol=1e-5)
    ids = clip.load_clip_tokenizer(tmp_path)(["Red dog"])
    assert ids.shape == (1, 77) and ids[0, :8].tolist() == [52, 17, 4, 29, 3, 14, 32, 53]
    np.testing.assert_allclose(texts(["Red dog"]), of_texts(jnp.asarray(ids)), atol=1e-5)


def test_wrong_folders_are_refused(tmp_path):
    with refused("--clip: '.*nowhere' is not a folder; pass"):
        clip.load_clip(str(tmp_path / "nowhere"))
    with refused("tokenizer: '.*' has no vocab.json"):
        clip.load_clip(str(tmp_path))
    tokenizer_files(tmp_path)
    with refused(f"'{tmp_path}' holds neither", error=(ValueError, FileNotFoundError)):
        clip.load_clip(str(tmp_path))
