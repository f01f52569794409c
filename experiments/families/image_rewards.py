"""Published rewards of images and their prompts: ImageReward, CLIP score, HPS v2.1 and the aesthetic score.

Each reads images [B, H, W, 3] in [0, 1] and what is kept of their prompts: ids of tokens, or features that are computed
once. A reward that guides is differentiable in the images; finished images are rounded first, as files hold them.
"""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from diffusion.convert.clip import load_aesthetic, load_clip
from diffusion.convert.files import open_tensors
from diffusion.convert.image_reward import load_image_reward
from diffusion.data.prompt_tokenizers import load_bert_tokenizer, load_clip_tokenizer
from diffusion.nets.sd.aesthetic import Aesthetic
from diffusion.nets.sd.blip import IMAGE_REWARD, TINY_IMAGE_REWARD, ImageReward
from diffusion.nets.sd.clip import CLIP, CLIP_H, CLIP_L, TINY_CLIP
from diffusion.nets.sd.preprocessing import preprocess
from diffusion.types import Params
from experiments.families.base import lookup, rows_like
from experiments.published import open_weights

TEXT_TOKENS = 35  # of a prompt, for ImageReward
Text = Any  # what is kept of P prompts, arrays [P, ...]
Tokenize = Callable[[list[str]], Any]  # ids [P, S], and where they are padded a mask


class Scorer(NamedTuple):
    """One reward: its parameters, what it keeps of prompts, and its score.

    `init(key)` makes random parameters, and `read(folder)` those of the files below the folder of weights, as
    `tokenizer(folder)` its vocabulary (None: a stand-in for random weights). What is kept of prompts is
    `encode(params, tokens)`, of the shapes `text_like(prompts)`. `kept(params)` are the parameters of
    `score(params, images, text, eight_bit)`.
    """

    init: Callable[[jax.Array], Params]
    read: Callable[[Path], Params]
    tokenizer: Callable[[Path | None], Tokenize]
    encode: Callable[[Params, Any], Text]
    kept: Callable[[Params], Params]
    score: Callable[..., Float[Array, " B"]]
    text_like: Callable[[int], Text]
    features: Callable[..., Float[Array, "B P"]] | None = None  # of images, of unit norm: features(params, images, ...)


def clip_scorer(net: CLIP, file: str, vocabulary: str) -> Scorer:
    """The cosine of the features of an image and its text; `vocabulary` is the folder of the tokenizer."""
    size, length = net.vision_model.image, net.text_model.length
    hashed = hashed_tokenizer(net.text_model.vocab_size, length)

    def init(key: jax.Array) -> Params:
        return net.init(key, jnp.zeros((1, size, size, 3)), jnp.zeros((1, length), jnp.int32))["params"]

    def encode(params: Params, ids: Array) -> Any:
        return net.apply({"params": params}, ids, method="text_features")

    def features(params: Params, images: Array, eight_bit: bool = False) -> Any:
        return net.apply({"params": params}, preprocess(images, size, eight_bit), method="image_features")

    def score(params: Params, images: Array, text: Text, eight_bit: bool = False) -> Float[Array, " B"]:
        return (features(params, images, eight_bit) * text).sum(axis=-1)

    return Scorer(
        init,
        lambda weights: load_clip(net, open_weights(weights / file, "clip"), file)["params"],
        lambda weights: load_clip_tokenizer(weights / vocabulary, "zero", length) if weights else hashed,
        encode,
        lambda params: {"vision_model": params["vision_model"]},
        score,
        lambda prompts: rows_like(prompts, net.vision_model.projection, dtype=jnp.float32),
        features,
    )


def image_reward_scorer(net: ImageReward, file: str, vocabulary: str) -> Scorer:
    """ImageReward (arXiv 2304.05977), which keeps the ids of a prompt and the mask of its padding."""
    size, length = net.vision[0], TEXT_TOKENS

    def hashed(texts: list[str]) -> Any:
        ids = hashed_tokenizer(net.text[0], length)(texts)
        return ids, np.ones_like(ids)

    def init(key: jax.Array) -> Params:
        ids = jnp.zeros((1, length), jnp.int32)
        return net.init(key, jnp.zeros((1, size, size, 3)), ids, jnp.ones_like(ids))["params"]

    def score(params: Params, images: Array, text: Text, eight_bit: bool = False) -> Any:
        return net.apply({"params": params}, preprocess(images, size, eight_bit), *text)

    return Scorer(
        init,
        lambda weights: load_image_reward(open_weights(weights / file, "image_reward"), file, net)["params"],
        lambda weights: load_bert_tokenizer(weights / vocabulary, length) if weights else hashed,
        lambda params, tokens: tokens,
        lambda params: params,
        score,
        lambda prompts: (rows_like(prompts, length, dtype=jnp.int32),) * 2,
    )


def aesthetic_scorer(net: CLIP, clip: Scorer, file: str) -> Scorer:
    """LAION's aesthetic score, of the image alone: a head on the features of `clip`, which keeps nothing of prompts."""
    head = Aesthetic()

    def init(key: jax.Array) -> Params:
        features = jnp.zeros((1, net.vision_model.projection))
        return clip.init(key) | {"head": head.init(key, features)["params"]}

    def score(params: Params, images: Array, text: Text, eight_bit: bool = False) -> Float[Array, " B"]:
        assert clip.features is not None
        rewards: Any = head.apply({"params": params["head"]}, clip.features(params, images, eight_bit))
        return rewards

    return clip._replace(
        init=init,
        read=lambda weights: (
            clip.read(weights) | {"head": load_aesthetic(open_tensors(weights / file), file)["params"]}
        ),
        encode=lambda params, ids: jnp.zeros((len(ids), 0)),
        kept=lambda params: clip.kept(params) | {"head": params["head"]},
        score=score,
        text_like=lambda prompts: rows_like(prompts, 0, dtype=jnp.float32),
    )


def names(config: ConfigDict) -> tuple[str, ...]:
    """The rewards of a config, those that guide first, and its measures."""
    options = config.text_to_image
    return tuple(dict.fromkeys((*options.rewards, *options.measures)))


def scorers(config: ConfigDict, wanted: tuple[str, ...]) -> dict[str, Scorer]:
    """Rewards by their names; raises ValueError for an unknown one."""
    options = config.text_to_image
    tiny = options.backbone.startswith("tiny")
    clip, hps, image_reward = (TINY_CLIP, TINY_CLIP, TINY_IMAGE_REWARD) if tiny else (CLIP_L, CLIP_H, IMAGE_REWARD)
    of_clip = clip_scorer(clip, options.clip, options.clip)
    known = {
        "image_reward": image_reward_scorer(image_reward, options.image_reward, options.bert),
        "clip": of_clip,
        "hps": clip_scorer(hps, options.hps, options.clip),
        "aesthetic": aesthetic_scorer(clip, of_clip, options.aesthetic),
    }
    fields = {name: "rewards" if name in options.rewards else "measures" for name in wanted}
    return {name: lookup(known, name, f"text_to_image.{field}") for name, field in fields.items()}


def hashed_tokenizer(vocabulary: int, length: int) -> Callable[[list[str]], np.ndarray]:
    """Ids by a hash of each word, for random weights, which have no vocabulary; the last id ends texts."""

    def tokenize(texts: list[str]) -> np.ndarray:
        rows = np.full((len(texts), length), vocabulary - 1, np.int32)
        for row, text in zip(rows, texts, strict=True):
            words = text.split()[: length - 2]
            row[: len(words)] = [zlib.crc32(word.encode()) % (vocabulary - 1) for word in words]
        return rows

    return tokenize
