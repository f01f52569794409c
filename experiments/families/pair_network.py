"""The encoder-decoder's calls and floating-point operations, with sources or without."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from diffusion.data.sources import PAIRS
from experiments.families.base import System


def has_sources(config: ConfigDict) -> bool:
    """Whether the data are pairs; on text the model is unconditional and reads the mask for a source."""
    return config.data.source in PAIRS


def network_call(system: System, name: str) -> Callable[..., Any]:
    """A call of the network by its name, with parameters first: encode, next_logits, step."""

    def call(params, *inputs, **options):
        return system.net.apply({"params": params}, *inputs, method=name, **options)

    return call


def pair_flops(config: ConfigDict, classes: int) -> tuple[float, float]:
    """Floating-point operations of one example's source, and of one pass over its target with its logits.

    Matrix products only. For kind=joint everything is target; a causal pass is that over all positions.
    """
    net, target = config.encoder_decoder, config.data.length
    source = config.data.source_length if has_sources(config) else 1
    hidden, latent = net.hidden, net.latent

    def blocks(count: int, tokens: int, length_read: int) -> float:
        own = tokens * (8 * hidden**2 + 4 * tokens * hidden + 4 * hidden * net.feed_forward)
        cross = tokens * (4 * hidden**2 + 4 * length_read * hidden) + length_read * 4 * hidden**2 if length_read else 0
        return count * (own + cross)

    joint = net.kind == "joint"
    tokens = source + target if joint else target
    enter = 2 * latent * hidden
    if net.kind != "causal":
        dinoiser = net.form == "dinoiser"
        enter = 8 * latent * hidden + 4 * hidden**2 if dinoiser else 4 * latent * hidden + 6 * hidden**2
        enter += 1024 * (256 + hidden) if dinoiser else 16 * hidden**2
    leave = target * 2 * latent * (hidden + classes)
    decoder = tokens * enter + blocks(net.decoder_blocks, tokens, 0 if joint else source) + leave
    encoder = 0.0 if joint else source * 2 * latent * hidden + blocks(net.encoder_blocks, source, 0)
    return float(encoder), float(decoder)


def pair_training_flops(config: ConfigDict, classes: int) -> float:
    """Floating-point operations of one optimizer step: three passes with a gradient, one for each estimate."""
    encoder, decoder = pair_flops(config, classes)
    if config.encoder_decoder.kind == "causal":
        return 3 * (encoder + decoder) * config.train.batch
    options = config.embedding
    summed, remembers = options.alternate == "sum", options.alternate == "sum" or options.memory_rate > 0
    passes = 3 * (1 + summed) + remembers + (options.mans.map != "off")
    return (3 * encoder + passes * decoder) * config.train.batch
