"""CLIP ViT-L/14 as features of crops and of texts, from a folder of `transformers`, or tiny with random weights."""

import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int32, UInt8
from PIL import Image

from diffusion.convert.clip import load_clip as load_params
from diffusion.data.prompt_tokenizers import load_clip_tokenizer
from diffusion.nets.sd.clip import CLIP_L, TINY_CLIP
from diffusion.nets.sd.preprocessing import MEAN, STANDARD_DEVIATION
from experiments.geneval.colors import ImageFeatures, TextFeatures
from experiments.geneval.detector import RANDOM
from experiments.published import open_floats

BATCH = 4  # images of a call; prompts ask for no more colors


def pixels(image: UInt8[np.ndarray, "H W 3"], size: int) -> Float[np.ndarray, "size size 3"]:
    """Return an image as CLIP takes it: its shorter side resized to `size`, cropped at the center, and normalized.

    Resizing is Pillow's, bicubic with antialiasing, as in the published code.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    wide, high = int(size * width / short), int(size * height / short)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    larger = Image.fromarray(image).resize((wide, high), Image.Resampling.BICUBIC)
    square = np.asarray(larger.crop((left, top, left + size, top + size)), np.float32) / 255
    return (square - np.array(MEAN, np.float32)) / np.array(STANDARD_DEVIATION, np.float32)


def load_clip(folder: str) -> tuple[ImageFeatures, TextFeatures]:
    """Return the features of images and of texts by the CLIP of a folder, or for "random" by a tiny random one.

    The folder holds vocab.json, merges.txt, and weights as model.safetensors or pytorch_model.bin, or is a conversion.

    Raises:
      ValueError: if a file is missing or damaged, or holds another model.
    """
    if folder == RANDOM:
        net, params, tokenize = TINY_CLIP, random_params(), random_ids
    else:
        if not Path(folder).is_dir():
            raise ValueError(f"--clip: '{folder}' is not a folder; pass one with clip-vit-large-patch14")
        net, tokenize = CLIP_L, load_clip_tokenizer(folder)
        params = jax.tree.map(jnp.asarray, load_params(net, open_floats(folder, "clip"), folder))
    of_images = jax.jit(lambda params, x: net.apply(params, x, method="image_features"))
    of_texts = jax.jit(lambda params, ids: net.apply(params, ids, method="text_features"))
    size = net.vision_model.image

    def image_features(images: list[np.ndarray]) -> Float[np.ndarray, "N D"]:
        found = []
        for start in range(0, len(images), BATCH):
            part = [pixels(image, size) for image in images[start : start + BATCH]]
            # One shape, compiled once.
            padding = [np.zeros_like(part[0])] * (BATCH - len(part))
            found.append(np.asarray(of_images(params, np.stack([*part, *padding])))[: len(part)])
        return np.concatenate(found)

    def text_features(texts: list[str]) -> Float[np.ndarray, "N D"]:
        return np.asarray(of_texts(params, tokenize(texts)))

    return image_features, text_features


def random_params(seed: int = 0) -> dict:
    """Return parameters of the tiny CLIP."""
    text, vision = TINY_CLIP.text_model, TINY_CLIP.vision_model
    images, ids = jnp.zeros((1, vision.image, vision.image, 3)), jnp.zeros((1, text.length), jnp.int32)
    shapes, rng = jax.eval_shape(TINY_CLIP.init, jax.random.key(0), images, ids), np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0.0, 0.3, leaf.shape), leaf.dtype), shapes)


def random_ids(texts: list[str]) -> Int32[np.ndarray, "N S"]:
    """Return ids for the tiny CLIP: hashes of words, and the highest id at the end."""
    end, length = TINY_CLIP.text_model.vocab_size - 1, TINY_CLIP.text_model.length
    ids = np.full((len(texts), length), end, np.int32)
    for row, text in zip(ids, texts, strict=True):
        words = [zlib.crc32(word.encode()) % end for word in text.split()][: length - 1]
        row[: len(words)] = words
    return ids
