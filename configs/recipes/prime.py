"""MDM-Prime on text: models by number of sub-tokens and objective, with their rows, columns, plots and notes."""

from configs.recipes.small import left_to_right, small
from configs.recipes.table import JUDGED, TEXT, columns, evaluated, held_out, plot, quality, sampled
from configs.recipes.text import at_scale

FIGURES = (
    (
        'published "PPL" (Prime: exp(joint_ce), withdrawn)',
        {
            "AR": "17.54",
            "MDLM": "<= 22.98",
            "Prime, 2 digits, joint": "<= 17.90",
            "Prime, 3 digits, joint": "not found",
            "Prime, 4 digits, joint": "<= 15.62",
            "Prime, 6 digits, joint": "<= 15.36",
            "Prime, 8 digits, joint": "<= 15.48",
        },
    ),
    (
        "corrected PPL (valid bound)",
        {
            "AR": "17.54 (unaffected)",
            "MDLM": "<= 22.98 (unaffected)",
            "Prime, 2 digits, joint": "<= 36.55",
            "Prime, 3 digits, joint": "<= 41.20",
            "Prime, 4 digits, joint": "<= 44.08",
            "Prime, 6 digits, joint": "<= 47.68",
            "Prime, 8 digits, joint": "<= 48.85",
        },
    ),
)
COLUMNS = columns(
    ("perplexity", "perplexity (ours, valid bound)", ".2f"),
    ("bits_per_byte", "bits/byte (valid bound)", ".3f"),
    ("nats_per_token", "valid bound (nats/token)", ".3f"),
    "bound_grouped/nats_per_token",
    ("bound_steps_32/nats_per_token", "32-step bound (nats/token)", ".3f"),
    *(
        "joint_ce/nats_per_token",
        "evaluations",
        "idle_share",
        JUDGED,
        *TEXT[1:],
        "self_bleu",
        "parse_rate",
        "seconds_per_sample",
    ),
)
ALSO = ("joint_ce", "bound_grouped", "bound_steps_32")
DIGITS = {"paper": (2, 3, 4, 6, 8), "gpu": (2, 4), "local": (2, 4), "debug": (2,)}
TARGETS = ("joint", "marginal")
# Autoregressive models that read and write one digit at a time.
CAUSAL_DIGITS = {"paper": DIGITS["paper"], "debug": (2,)}
# One seed each, on four sub-tokens trained on the bound.
EXTRAS = {
    "grouped mix": {"codec.chunk_point": 0.5},
    "own tables": {"codec.shared": False},
    "shuffled codes": {"codec.shuffle": 1},
}
SAMPLING_STEPS = {"paper": (512, 1024), "gpu": (8, 32, 128, 512), "local": (8, 32, 128, 256), "debug": (2, 4)}
TRAINING_STEPS = {"AR": 500, "others": 1400}  # of `local`
NOTES = (
    "AR's figures are exact, all others upper bounds: MDLM's is bound_continuous, Prime's bound_marginal, the same "
    "integral over digits. joint_ce is the loss of the MDM-Prime paper: it leaves out the total correlation of a "
    "token's masked digits, falls below the entropy of the data, and is not a likelihood; for MDLM it is the bound. "
    "The "
    "32-step bound is that of a sampler with 32 steps which draws whole tokens. NFE counts denoiser evaluations, also "
    "the one that fills what is left after the last step; every row is sampled with the same steps, and the last fill "
    "is a draw for all of them (the paper takes the argmax for one digit). The judge is the AR row. "
)


def plots(digits: tuple[int, ...], extras: tuple[str, ...] = ()) -> tuple[dict, ...]:
    """The bound and joint_ce against the number of sub-tokens, and the quality of samples at equal evaluations."""
    places = {
        target: (("MDLM", 1), *((f"Prime, {count} digits, {target}", count) for count in digits)) for target in TARGETS
    }
    numbers = {
        "valid bound": "nats_per_token",
        "joint_ce (no likelihood)": "joint_ce/nats_per_token",
        "grouped bound": "bound_grouped/nats_per_token",
    }
    lines = [
        ((f"trained on {target}", name), key, places[target]) for target in TARGETS for name, key in numbers.items()
    ]
    lines += [
        ((f"marginal, {name}", "valid bound"), "nats_per_token", ((f"Prime, 4 digits, marginal, {name}", 4),))
        for name in extras
    ]
    return (
        dict(
            name="digits",
            title="The bound, and the joint cross-entropy below it",
            xlabel="digits a token (1: MDLM)",
            ylabel="nats per token (test)",
            series=tuple(lines),
            references=(("AR (exact)", "nats_per_token", "AR"),),
        ),
        quality("Sample quality at equal evaluations", ylabel="perplexity under the AR judge"),
        plot("entropy", "evaluations", "entropy", "Entropy of the same samples"),
    )


def at_prime_scale(config) -> None:
    """Data, sizes and sample settings of a scale."""
    at_scale(config, local=python)
    config.quality.parse = config.variant in ("local", "debug")
    if config.variant == "paper":
        config.codec.carry_over = False
        config.sample.update(nucleus=0.95, nucleus_rule="inclusive")


def python(config) -> None:
    """The local scale: bytes of the standard library's sources.

    With a larger vocabulary all trainings would end on the plateau that precedes the use of context. Partially masked
    tokens lengthen it, so that seeds would differ more than rows.
    """
    small(config)
    config.data.update(tokenizer="bytes", vocab_size=257)
    config.train.steps = TRAINING_STEPS["others"]
    config.evaluate.update(batches=12, draws=4)
    config.sample.update(count=32, batch=32)
    config.judge.batch = 32


def baseline(config) -> dict:
    """Overrides of the autoregressive row, the judge of all others."""
    steps = {"train.steps": TRAINING_STEPS["AR"]} if config.variant == "local" else {}
    return left_to_right(config) | steps | {"evaluate.also": ()}


def by_digits(config) -> dict[str, dict]:
    """Overrides of the autoregressive rows over digits, by name.

    Digits that lead to no token are filtered out at every scale. Sequences are longer by the number of digits, and so
    there are more micro-batches of the published batch.
    """
    rows = {}
    for count in CAUSAL_DIGITS.get(config.variant, ()):
        longer = 2 ** (count - 1).bit_length() if config.variant == "paper" else 1
        digits = {"codec.digits": count, "codec.carry_over": True}
        rows[f"AR, {count} digits"] = baseline(config) | digits | {"train.accumulate": config.train.accumulate * longer}
    return rows


def models(digits: tuple[int, ...], extras: bool = False, filtered: bool = False):
    """(row, curve, overrides, further fields of the row) of every masked model.

    With `filtered` the joint models are also trained with the carry-over filter, which others then lack.
    """
    yield "MDLM", "1 digit (MDLM)", {}, {}
    for count in digits:
        for target in TARGETS:
            overrides = {"codec.digits": count, "objective.target": target}
            yield f"Prime, {count} digits, {target}", (f"{count} digits", target), overrides, {}
    for count in digits if filtered else ():
        overrides = {"codec.digits": count, "objective.target": "joint", "codec.carry_over": True}
        yield f"Prime, {count} digits, joint, carry-over", (f"{count} digits", "joint, carry-over"), overrides, {}
    for name, changes in EXTRAS.items() if extras else ():
        overrides = {"codec.digits": 4, "objective.target": "marginal", **changes}
        yield f"Prime, 4 digits, marginal, {name}", ("4 digits", f"marginal, {name}"), overrides, {"seeds": 1}


def comparison(config, digits: tuple[int, ...], extras: bool = False, causal_digits: bool = False):
    """The likelihood of every model, then its samples at every number of steps, all judged by AR.

    `causal_digits` adds the autoregressive rows over digits. Where the config has no carry-over filter, rows with it
    are added.
    """
    every = list(models(digits, extras, filtered=not config.codec.carry_over))
    yield held_out(seeds=1)
    yield dict(name="AR", overrides=baseline(config), verbs=("evaluate", "sample"), seeds=1)
    for name, overrides in by_digits(config).items() if causal_digits else ():
        yield dict(name=name, overrides=overrides, verbs=("evaluate", "sample"), seeds=1)
    for name, _, overrides, fields in every:
        yield evaluated(name, overrides, **fields)
    for name, curve, overrides, fields in every:
        for count in SAMPLING_STEPS[config.variant]:
            yield sampled(f"{name}, {count} steps", overrides, count, curve=curve, **fields)


def continuations(digits: tuple[int, ...], prefix: int, steps: int):
    """Samples that continue the first `prefix` tokens of held-out windows, measured with them, and their self-BLEU."""
    overrides = {"sample.prefix": prefix, "sample.steps": steps, "quality.self_bleu": True}
    for name, _, model, fields in models(digits):
        yield sampled(f"{name}, {steps} steps, from {prefix} tokens", model | overrides, curves={}, **fields)
