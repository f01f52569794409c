"""Networks over tokens or sub-tokens by their names in a config."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
from ml_collections import ConfigDict

from diffusion.data.arrays import image_shape, label_count
from diffusion.nets import classifier, discrete_unet, mlp
from diffusion.nets.attention_masks import Causal, Full
from diffusion.nets.dit import DiT
from diffusion.nets.subtoken_embedding import SubtokenEmbedding, check_embedding
from diffusion.types import MaskedProcess, Process
from experiments.families.base import fields_of, lookup

# Fields of `model` that are not those of a network.
NOT_FIELDS = ("net", "time_conditioning", "causal", "start")


class Network(NamedTuple):
    """What a config may ask of a network.

    `make(config, classes, process)` builds it, and `width(config)` is that of the self-conditioning input, None for a
    network without a place for it.
    """

    make: Callable[[ConfigDict, int, Any], nn.Module]
    width: Callable[[ConfigDict], int] | None = None
    labels: bool = False  # whether it can be class-conditional


def transformer(config: ConfigDict, classes: int, process: Process | MaskedProcess) -> DiT:
    """The DiT, behind an embedding of tokens by their sub-tokens; a causal network reads one sub-token a position."""
    fields = {name: value for name, value in config.model.items() if name not in NOT_FIELDS}
    fields |= {"memory": config.memory.adapter != "none", "mask": Causal() if config.model.causal else Full()}
    embedder = None
    if isinstance(process, MaskedProcess) and process.subtokens > 1 and not config.model.causal:
        merge, shared, hidden = config.codec.merge, config.codec.shared, config.model.hidden
        check_embedding(process.subtokens, hidden, merge)
        embedder = SubtokenEmbedding(process.mask_id, process.subtokens, hidden, merge, shared)
    return DiT(vocab_size=classes, embedder=embedder, **fields)


def discrete_image_unet(config: ConfigDict, classes: int, process: MaskedProcess) -> nn.Module:
    """The U-Net over the pixels of `data.source` as tokens."""
    return discrete_unet.UNet(
        image_shape(config.data),
        classes,
        process.mask_id,
        process.subtokens,
        **fields_of(config.unet),
        dtype=config.model.dtype,
        remat=config.model.remat,
        unroll=config.model.unroll,
        attention=config.model.attention,
        merge=config.codec.merge,
        shared=config.codec.shared,
        memory=config.memory.adapter != "none",
    )


def perceptron(config: ConfigDict, classes: int, process: MaskedProcess) -> nn.Module:
    """The MLP over all positions at once, with as many layers as the model has blocks."""
    model = config.model
    return mlp.Mlp(
        positions=config.data.length,
        classes=classes,
        base=process.mask_id,
        digits=process.subtokens,
        hidden=model.hidden,
        layers=model.blocks,
        dropout=model.dropout,
        time=model.time_conditioning,
        dtype=model.dtype,
    )


def image_classifier(config: ConfigDict, classes: int, process: MaskedProcess) -> nn.Module:
    """The classifier of the images of `data.source` by their labels, on whole tokens."""
    if process.subtokens > 1:
        raise ValueError("codec.digits: a classifier reads whole tokens; its row sets codec.digits=1")
    del classes
    fields, shape, labels = fields_of(config.classifier), image_shape(config.data), label_count(config.data)
    return classifier.Classifier(shape, process.mask_id, labels, **fields, dtype=config.model.dtype)


NETWORKS = {
    "dit": Network(transformer, lambda config: config.model.hidden, labels=True),
    "unet": Network(discrete_image_unet, lambda config: config.unet.embedding_channels or config.unet.channels),
    "mlp": Network(perceptron),
    "classifier": Network(image_classifier),
}


def network_of(config: ConfigDict) -> Network:
    """The entry of NETWORKS that `model.net` names; raises ValueError for an unknown one."""
    return lookup(NETWORKS, config.model.net, "model.net")
