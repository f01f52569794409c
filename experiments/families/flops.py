"""Analytic floating-point operations of a config's training step and of its forward pass."""

from ml_collections import ConfigDict

from diffusion.nets import classifier, discrete_unet, mlp
from diffusion.nets.dit import flops_per_token
from experiments.families import seq2seq, text_to_image
from experiments.families.masked import NETS, System, process

EXAMPLE_FLOPS = {
    "unet": discrete_unet.flops_per_example,
    "mlp": mlp.flops_per_example,
    "classifier": classifier.flops_per_example,
}


def training_flops(config: ConfigDict, system: System) -> float:
    """Analytic floating-point operations of one optimizer step.

    Three forward passes' worth a token, and one more for the first pass of a network that remembers, at its rate. An
    error predictor takes three of its own (a head one, on frozen blocks) and the denoiser's passes without gradients.
    """
    if config.model.net == seq2seq.NET:
        return seq2seq.pair_training_flops(config, system.classes)
    forward, memory = forward_flops(config, system.classes), config.memory.adapter != "none"
    if system.errors:
        own = system.error_flops * (1 if config.predictor.kind == "head" else 3)
        return (own + forward * (2 if memory else 1)) * config.train.batch
    return (3 + (config.memory.rate if memory else 0)) * forward * config.train.batch


def forward_flops(config: ConfigDict, classes: int) -> float:
    """Analytic floating-point operations of one example's forward pass, its memory left out."""
    model = config.model
    if model.net in text_to_image.NETS:
        return text_to_image.gaussian_flops(config)
    if model.net == seq2seq.NET:
        return sum(seq2seq.pair_flops(config, classes))
    if model.net in EXAMPLE_FLOPS:
        net = NETS[model.net](config, classes, process(config, config.data.vocab_size))
        return EXAMPLE_FLOPS[model.net](net)
    token = flops_per_token(
        hidden=model.hidden,
        blocks=model.blocks,
        vocab_size=classes,
        length=config.data.length,
        mlp_ratio=model.mlp_ratio,
        causal=model.causal,
    )
    return token * config.data.length
