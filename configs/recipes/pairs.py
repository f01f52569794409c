"""Sequence-to-sequence models: scales, methods with their rows, columns, plots and notes."""

from typing import Any

from configs.base import defaults
from configs.recipes.table import sampled

AR = "AR"
# The networks of the two base methods in their public code for IWSLT14; larger data sets change the widths.
DIFFORMER = dict(latent=128, hidden=512, feed_forward=1024, heads=4, encoder_blocks=6, decoder_blocks=6)
DIFFORMER |= dict(scale="scaled", form="difformer", norm_first=False, activation="relu", dropout=0.3, table_std=0.02)
DINOISER = dict(latent=16, hidden=512, feed_forward=1024, heads=4, encoder_blocks=6, decoder_blocks=6)
DINOISER |= dict(scale="unit", form="dinoiser", norm_first=False, activation="relu", dropout=0.2, table_std=1e-3)
DINOISER |= dict(input_norm=False, length_gradient=False)
# Perturbation of estimates and of noise. Gap, coupling, map and strength are inferred; `fastdiss_ablations` has other
# values of each.
SCP = {"embedding.scp.gap": "fixed", "embedding.scp.size": 0.2, "embedding.scp.couple": "independent"}
MANS = {"embedding.mans.map": "shift", "embedding.mans.strength": 0.5}
METHODS = {
    "standard": {},
    "SCP": SCP,
    "SCP, Markov noise": SCP | {"embedding.scp.couple": "markov"},
    "MANS": MANS,
    "MANS and SCP": MANS | SCP,
    "random shift": {"embedding.mans.map": "random"},
    "random shift, same mean": {"embedding.mans.map": "random", "embedding.mans.strength": 1.0},
    "shuffled confidence": {"embedding.mans.map": "shuffled"},
}
SIX = ("standard", "SCP", "MANS", "MANS and SCP", "random shift", "shuffled confidence")
SEVEN = (*SIX, "random shift, same mean")
STEPS = (1, 2, 3, 5, 10, 20, 100)
# Methods whose best F is not 2, by the mean BLEU of 5 and 20 steps on validation sentences of the dialects, one seed
# trained half as long (`fastdiss_ablations`). Each is inside the range that was tried. Markov noise has SCP's, untuned.
OTHER = dict.fromkeys(("standard", "SCP", "SCP, Markov noise"), 3.0) | {"random shift, same mean": 1.5}
QUALITY = {
    "bleu": (("bleu", "BLEU", ".2f"),),
    "chrf": (("chrf", "chrF", ".2f"),),
    "exact": (("exact", "exact match", ".3f"),),
    "bertscore": (("bertscore", "BERTScore", ".2f"),),
    "rouge": (("rouge1", "ROUGE-1", ".2f"), ("rouge2", "ROUGE-2", ".2f"), ("rougeL", "ROUGE-L", ".2f")),
}
COST = (
    ("steps", "steps", ".0f"),
    ("evaluations", "NFE", ".0f"),
    ("candidates", "candidates", ".0f"),
    ("gigaflops", "GFLOP per sentence", ".4f"),
    ("seconds_per_sentence", "s per sentence", ".5f"),
)
NOTES = (
    "SCP, MANS: the two parts of FastDiSS (arXiv 2604.05551). Its equations are not available: gap and coupling of "
    "SCP (0.2, fresh noise) and map and strength of MANS (shift, 0.5) are inferred. Controls, not methods: 'random "
    "shift' draws the shift of every token (u ~ U(0, 1) for the confidence; strength 0.5, or 1, which has about MANS's "
    "mean), 'shuffled confidence' gives tokens the confidence of others. Every row has its own noise factor F "
    "(`process.factor`); decoding starts from noise of deviation `sample.translation.factor`. NFE are calls one after "
    "the other for one candidate; seconds are those of a batch, measured after compilation, over its sentences, "
    "without re-ranking. 'recompute' takes two calls per step. BLEU and chrF by sacreBLEU over all references; exact "
    "match with any of them."
)
# English to German at local scale, as a change of the dialects.
TATOEBA = {
    "data.source": "tatoeba",
    "data.tokenizer": "bpe",
    "data.vocab_size": 4096,
    "data.source_length": 20,
    "data.length": 20,
    "encoder_decoder.latent": 32,
    "encoder_decoder.hidden": 128,
    "encoder_decoder.encoder_blocks": 2,
    "encoder_decoder.decoder_blocks": 2,
    "encoder_decoder.feed_forward": 512,
    # More steps of smaller batches than the dialects, at the same learning rate.
    "optimizer.warmup": 200,
    "train.batch": 32,
    "train.steps": 4000,
    "train.checkpoint_every": 2000,
    "train.evaluate_every": 2000,
    "sample.count": 2000,
    "sample.translation.tokenize": "intl",
}
TATOEBA_PREFIX = "Tatoeba: "


def pairs(table: str, variant: str):
    """The config of sequence-to-sequence models on dialects at local and debug scale; other scales change it."""
    config = defaults(table, variant)
    config.data.update(source="dialects", tokenizer="words", vocab_size=69, source_length=9, length=9)
    config.model.net = "encoder_decoder"
    config.encoder_decoder.positions = 32
    config.process.update(schedule="sigma_is_time", prediction="clean", factor=3.0)
    config.objective.name = "embedding"
    config.optimizer.update(learning_rate=2e-3, warmup=100, decay="cosine", weight_decay=0.01)
    config.sample.translation.tokenize = "none"
    if variant == "debug":
        config.encoder_decoder.update(latent=8, hidden=16, decoder_blocks=1, heads=2, feed_forward=32)
        config.train.update(steps=4, batch=8, log_every=2, evaluate_every=2, evaluate_batches=1, checkpoint_every=2)
        config.train.ema = 0.9
        config.optimizer.warmup = 2
        config.sample.update(count=16, batch=8, steps=3)
        config.judge.batch = 8
        return config
    config.seeds = (0, 1, 2)
    config.train.update(steps=2000, batch=64, ema=0.998, log_every=20, checkpoint_every=500)
    config.train.update(evaluate_every=500, evaluate_batches=8)
    config.sample.update(count=1000, batch=250, steps=5)
    config.judge.batch = 250
    return config


def accelerated(config, length: int, vocabulary: int):
    """Common settings of the scales for accelerators: a BPE of both sides, and products in bfloat16."""
    config.data.update(tokenizer="bpe", vocab_size=vocabulary, source_length=length, length=length)
    config.encoder_decoder.positions = length
    config.model.dtype = "bfloat16"
    config.optimizer.update(learning_rate=5e-4, beta2=0.98, decay="inverse_sqrt", warmup=10_000, weight_decay=0.01)
    config.objective.label_smoothing = 0.1
    config.sample.update(count=10_000, batch=256)
    config.sample.translation.tokenize = "13a"
    config.judge.batch = 256
    return config


def columns(*measures: str) -> tuple:
    """The columns of a table: measures of quality, then the cost of a sentence."""
    return (*(column for name in measures for column in QUALITY[name]), *COST)


def one_accelerator(config, steps: int, every: int):
    """Network, optimizer and training of the scale `gpu`."""
    config.encoder_decoder.update(latent=64, hidden=256, encoder_blocks=3, decoder_blocks=3, heads=8)
    config.encoder_decoder.update(feed_forward=1024, dropout=0.1)
    config.optimizer.update(learning_rate=1e-3, warmup=1000, decay="cosine")
    config.train.update(steps=steps, batch=256, ema=0.999, evaluate_every=every, checkpoint_every=every)
    return config


def published(config, steps: int, batch: int, every: int, **network):
    """Network and training of the scale `paper`: Difformer's network, with embeddings of unit length."""
    config.encoder_decoder.update(DIFFORMER | dict(scale="unit", table_std=1.0) | network)
    config.train.update(steps=steps, batch=batch, ema=0.9999, evaluate_every=every, checkpoint_every=every)
    return config


def translation(table: str, variant: str, factor: float):
    """The config of a table of translation, from the dialects to IWSLT14, whose F at the scale `paper` is `factor`."""
    config = pairs(table, variant)
    if variant == "gpu":
        accelerated(config, length=24, vocabulary=4096)
        config.data.source = "tatoeba"
        one_accelerator(config, 20_000, 2000)
        config.sample.count = 4000
        config.sample.translation.tokenize = "intl"
    if variant == "paper":
        accelerated(config, length=128, vocabulary=10_000)
        config.data.update(source="iwslt14", lower=True)
        published(config, 300_000, 256, 10_000)
        config.process.factor = factor
    return config


def factors(variant: str, common: dict[str, float]) -> dict[str, float]:
    """F by method: one value per variant, except for methods with a value tuned on validation sentences."""
    return dict.fromkeys(METHODS, common[variant]) | (OTHER if variant == "local" else {})


def fields(section: str, values: dict) -> dict:
    """Overrides of one section."""
    return {f"{section}.{name}": value for name, value in values.items()}


def row(name: str, method: str, steps: int, factor: float, plot: str = "", line: str = "", **more) -> dict:
    """A row of a method with its noise factor; `more` has its other overrides, `shared` those of its data."""
    overrides = more.pop("shared", {}) | METHODS[method] | {"process.factor": factor, "sample.steps": steps} | more
    curves = {plot: line, f"{plot}_seconds": line} if line else {}
    return sampled(name, overrides, curves=curves)


def method_rows(methods, steps, factors: dict, plot: str, prefix: str = "", shared: dict | None = None):
    """Every method at every number of steps; each step of 5 and of 20 is recorded. `factors` are F by method."""
    for method in methods:
        for count in steps:
            recorded: dict[str, Any] = {"sample.translation.diagnose": True} if count in (5, 20) else {}
            name = f"{prefix}{method}, {count} step{'s' if count > 1 else ''}"
            yield row(name, method, count, factors[method], plot, method, shared=shared or {}, **recorded)


def causal_row(plot: str, prefix: str = "", shared: dict | None = None) -> dict:
    """The autoregressive encoder-decoder of the same sizes with beam search, a horizontal line in the plots."""
    overrides = {"encoder_decoder.kind": "causal", "objective.name": "next_target"}
    return sampled(f"{prefix}{AR}", (shared or {}) | overrides, curves={plot: None, f"{plot}_seconds": None})


def joint_rows(config, steps, factor: float, plot: str, prefix: str = "", shared: dict | None = None):
    """DiffuSeq's model: one sequence of source and target with padding generated, without self-conditioning."""
    shared = shared or {}
    parts = ("encoder_blocks", "decoder_blocks")
    blocks = sum(shared.get(f"encoder_decoder.{name}", config.encoder_decoder[name]) for name in parts)
    joint = {"encoder_decoder.kind": "joint", "encoder_decoder.decoder_blocks": blocks}
    joint |= {"embedding.fill": True, "embedding.memory_rate": 0.0, "sample.translation.memory": "none"}
    for count in steps:
        name = f"{prefix}one sequence (DiffuSeq), {count} steps"
        yield row(name, "standard", count, factor, plot, "one sequence (DiffuSeq)", shared=shared | joint)


def memory_rows(methods, factors: dict, prefix: str = "", shared: dict | None = None):
    """Five steps with a recomputed estimate (two evaluations per step), and without an estimate."""
    for method in methods:
        for memory in ("recompute", "none"):
            more: dict[str, Any] = {"sample.translation.memory": memory}
            name = f"{prefix}{method}, 5 steps, {memory}"
            yield row(name, method, 5, factors[method], shared=shared or {}, **more)


def best_rows(
    method: str, steps: int, factors: dict, beam: int, seeds: int, prefix: str = "", shared=None, judged=True
):
    """Several lengths and noises per sentence, reranked by agreement in BLEU, or by the causal row."""
    several: dict[str, Any] = {"sample.translation.length_beam": beam, "sample.translation.seeds": seeds}
    name = f"{prefix}{method}, {steps} steps, {beam} x {seeds}"
    yield row(f"{name}, MBR", method, steps, factors[method], shared=shared or {}, **several)
    if judged:
        several |= {"sample.translation.rerank": "judge", "judge.name": "row", "judge.row": f"{prefix}{AR}"}
        yield row(f"{name}, judged by {AR}", method, steps, factors[method], shared=shared or {}, **several)


def dataset_rows(
    config,
    factors: dict,
    plot: str,
    prefix: str = "",
    shared: dict | None = None,
    methods=SIX,
    steps=(1, 2, 5, 20),
    memory=("standard",),
    candidates: tuple[int, int] = (5, 2),
    joint=(20, 2000),
):
    """One data set: methods, self-conditioning, several candidates, and the autoregressive and the joint model.

    Args:
      memory: the methods that are sampled with a recomputed estimate, and without one.
      candidates: numbers of lengths and of noises per sentence.
      joint: steps of the joint model.
    """
    yield from method_rows(methods, steps, factors, plot, prefix, shared)
    yield from memory_rows(memory, factors, prefix, shared)
    yield from best_rows("MANS and SCP", 5, factors, *candidates, prefix, shared)
    yield causal_row(plot, prefix, shared)
    yield from joint_rows(config, joint, factors["standard"], plot, prefix, shared)


def plots(measure: str, label: str, **titles: str) -> tuple[dict, ...]:
    """A measure against steps and against seconds, for each data set by its plot's name."""
    plots = []
    for name, title in titles.items():
        axes = dict(y=measure, ylabel=label)
        plots.append(dict(name=name, x="steps", title=f"{title}: {label} against steps", xlabel="steps", **axes))
        seconds = dict(name=f"{name}_seconds", x="seconds_per_sentence", xlabel="seconds per sentence")
        plots.append(dict(**seconds, title=f"{title}: {label} against time", **axes))
    return tuple(plots)


def courses(name: str, title: str, methods, steps: int = 20, prefix: str = "") -> tuple[dict, ...]:
    """BLEU at every step of a sampler, and the distance of its self-conditioning estimate from the next one."""
    course = {method: f"{prefix}{method}, {steps} steps" for method in methods}
    shared = dict(course=course, xlabel="step", log_x=False)
    return (
        dict(name=f"{name}_bleu_by_step", y="bleu", title=f"{title}: BLEU of every step", ylabel="BLEU", **shared),
        dict(
            name=f"{name}_error_by_step",
            y="memory_error",
            title=f"{title}: error of the self-conditioning input",
            ylabel="mean square",
            log_y=True,
            **shared,
        ),
    )
