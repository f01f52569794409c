"""Bounds of numbers and choices of names, which every job of a plan is checked against.

A field without an entry here takes any value of its type. What depends on several fields or on data is checked where it
is used, as are names that stand for functions.
"""

import math
from typing import Any, NamedTuple, get_args

from diffusion.data import splits
from diffusion.data.settings import DOCUMENTS, PACKINGS
from diffusion.glyphs import prompts
from diffusion.nets import encoder_decoder_io, error_predictor
from diffusion.nets.subtoken_embedding import MERGES
from diffusion.objectives import embedding, error_prediction, noise_scaling, perturbation
from diffusion.processes.gaussian import PREDICTIONS
from diffusion.sampling.gaussian.steering import POTENTIALS
from diffusion.sampling.sequences.embedding import MODES
from diffusion.train.optimizer import Decay


class Range(NamedTuple):
    """Numbers from `low` to `high`, both included, but for `low` where `above`."""

    low: float
    high: float = math.inf
    above: bool = False

    def __contains__(self, value: object) -> bool:
        """Returns whether a value is a number in the range; NaN is in none."""
        if not isinstance(value, (int, float)):
            return False
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        """The range as an error states it."""
        if self.high < math.inf:
            return f"lie in {'(' if self.above else '['}{self.low:g}, {self.high:g}]"
        if self.low == 0:
            return "be positive" if self.above else "not be negative"
        return f"be at least {self.low:g}"


COUNT, NOT_NEGATIVE, POSITIVE, SHARE = Range(1), Range(0), Range(0, above=True), Range(0, 1)


def fields(section: str, names: str, values: Any) -> dict[str, Any]:
    """The same values for several fields of a section."""
    return {f"{section}.{name}" if section else name: values for name in names.split()}


BOUNDS: dict[str, Range] = {
    **fields("", "cpu_devices", COUNT),
    **fields("data", "length source_length vocab_size", COUNT),
    **fields("data", "validation_documents validation_images", NOT_NEGATIVE),
    **fields("codec", "digits", COUNT),
    **fields("codec", "shuffle", NOT_NEGATIVE),
    **fields("codec", "chunk_point", SHARE),
    **fields("memory", "rate", SHARE),
    **fields("predictor", "corruption", SHARE),
    **fields("predictor", "threshold", NOT_NEGATIVE),
    **fields("predictor", "steps", COUNT),
    **fields("model", "hidden blocks heads cond_dim mlp_ratio unroll", COUNT),
    **fields("model", "labels", NOT_NEGATIVE),
    **fields("model", "dropout", SHARE),
    **fields("unet", "channels multipliers res_blocks attention_factors head_channels groups head_size", COUNT),
    **fields("unet", "dropout", SHARE),
    **fields("unet", "constant_init", NOT_NEGATIVE),
    **fields("classifier", "channels hidden", COUNT),
    **fields("classifier", "dropout", SHARE),
    **fields("captioned_unet", "channels heads layers groups context_width time_width", COUNT),
    **fields("captioned_unet", "transformer_layers middle_layers", NOT_NEGATIVE),
    **fields("encoder_decoder", "latent hidden encoder_blocks decoder_blocks heads feed_forward positions", COUNT),
    **fields("encoder_decoder", "length_classes", NOT_NEGATIVE),
    **fields("encoder_decoder", "dropout", SHARE),
    **fields("encoder_decoder", "table_std", POSITIVE),
    **fields("reward", "stem channels blocks hidden word_width groups", COUNT),
    **fields("process", "block", COUNT),
    **fields("process", "epsilon", SHARE),
    **fields("process", "power low high factor", POSITIVE),
    **fields("objective", "minimum_time levels prompt_dropout noise label_smoothing", SHARE),
    **fields("embedding", "memory_rate scp.size scp.probability mans.strength mans.off_probability", SHARE),
    **fields("embedding", "length_weight", NOT_NEGATIVE),
    **fields("embedding", "scp.steps", COUNT),
    **fields("embedding", "mans.largest", COUNT),
    **fields("optimizer", "learning_rate epsilon clip", POSITIVE),
    **fields("optimizer", "warmup", NOT_NEGATIVE),
    **fields("optimizer", "floor weight_decay", NOT_NEGATIVE),
    **fields("optimizer", "beta1 beta2", SHARE),
    **fields("train", "steps batch accumulate log_every evaluate_every evaluate_batches checkpoint_every keep", COUNT),
    **fields("train", "ema", SHARE),
    **fields("evaluate", "batch draws points", COUNT),
    **fields("evaluate", "batches", NOT_NEGATIVE),
    **fields("sample", "steps count repeats batch", COUNT),
    **fields("sample", "length stride infill", NOT_NEGATIVE),
    **fields("sample", "label", Range(-2)),
    **fields("sample", "temperature noise corrector", NOT_NEGATIVE),
    **fields("sample", "nucleus", Range(0, 1, above=True)),
    **fields("sample", "end", SHARE),
    **fields("sample.remask", "eta temperature", NOT_NEGATIVE),
    **fields("sample.remask", "on off level", SHARE),
    **fields("sample.gaussian", "images per_task best_of pool gradient.period condition.period", COUNT),
    **fields("sample.gaussian", "lookahead.particles lookahead.steps", COUNT),
    **fields("sample.gaussian", "lookahead.top", NOT_NEGATIVE),
    **fields("sample.gaussian", "eta lookahead.stop pool_correct", SHARE),
    **fields("sample.gaussian", "deviation", POSITIVE),
    **fields("sample.gaussian", "guidance gradient.scale condition.rate steering.strength", NOT_NEGATIVE),
    **fields("sample.gaussian", "lookahead.strength lookahead.scale", NOT_NEGATIVE),
    **fields("sample.uniform", "best_of steering.particles lookahead.particles lookahead.steps", COUNT),
    **fields("sample.uniform", "steering.strength lookahead.strength lookahead.scale", NOT_NEGATIVE),
    **fields("sample.translation", "length_beam seeds beam bertscore_layer", COUNT),
    **fields("sample.translation", "factor", POSITIVE),
    **fields("sample.translation", "penalty", NOT_NEGATIVE),
    **fields("judge", "batch", COUNT),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "data.packing": PACKINGS,
    "data.document": DOCUMENTS,
    "codec.merge": MERGES,
    "memory.adapter": ("none", "linear"),
    "predictor.kind": ("none", *error_predictor.KINDS),
    "predictor.labels": error_prediction.LABELS,
    "predictor.loss": tuple(error_prediction.LOSSES),
    "predictor.scope": error_prediction.SCOPES,
    "model.dtype": ("float32", "bfloat16"),
    "model.remat": ("none", "dots", "full"),
    "encoder_decoder.scale": encoder_decoder_io.SCALES,
    "encoder_decoder.form": ("difformer", "dinoiser"),
    "encoder_decoder.activation": ("gelu", "relu"),
    "process.prediction": PREDICTIONS,
    "objective.target": ("marginal", "joint"),
    "embedding.alternate": embedding.ALTERNATES,
    "embedding.rounding": embedding.ROUNDINGS,
    "embedding.floor": embedding.FLOORS,
    "embedding.scp.gap": perturbation.GAPS,
    "embedding.scp.couple": perturbation.COUPLES,
    "embedding.mans.map": noise_scaling.MAPS,
    "optimizer.decay": get_args(Decay),
    "evaluate.split": splits.NAMES,
    "sample.nucleus_rule": ("off", "inclusive", "standard"),
    "sample.precision": ("exact", "mdlm_float32"),
    "sample.final": ("argmax", "draw", "none"),
    "sample.digits_draw": ("token", "marginal"),
    "sample.memory": ("reuse", "null"),
    "sample.remask.schedule": ("process", "loop"),
    "sample.gaussian.split": prompts.SPLITS,
    "sample.gaussian.steering.potential": POTENTIALS,
    "sample.uniform.steering.potential": POTENTIALS,
    "sample.translation.memory": MODES,
    "sample.translation.rerank": ("mbr", "judge"),
    "sample.translation.split": splits.NAMES,
    "judge.name": ("none", "row", "gpt2", "classifier", "inception"),
    "judge.reference": splits.NAMES,
}


def check_values(fields: dict, section: str = "") -> None:
    """Raise ValueError for a number out of its bounds, alone or in a tuple, or a name that is not a choice."""
    for name, value in fields.items():
        field = f"{section}{name}"
        if isinstance(value, dict):
            check_values(value, f"{field}.")
        elif field in CHOICES and value not in CHOICES[field]:
            raise ValueError(f"{field}: unknown {value!r}; known: {', '.join(sorted(CHOICES[field]))}")
        elif field in BOUNDS:
            for each in value if isinstance(value, (list, tuple)) else [value]:
                if each not in BOUNDS[field]:
                    raise ValueError(f"{field}: must {BOUNDS[field]}, not {each!r}")
