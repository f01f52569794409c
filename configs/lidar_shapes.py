"""LiDAR against its baselines on images of glyphs: the six tasks of GenEval with an exact checker, on a CPU.

The exact tier needs no training: the model of each prompt is a set of images with a little noise, of which a third
fulfill it, and the reward is the share of the prompt that an image fulfills. The trained tier is a U-Net conditioned on
prompts, with a learned reward, on test prompts that neither was trained on; strengths are the best of `lidar_ablations`
on validation prompts. `debug` has both tiers at the smallest size.
"""

import functools

from configs.recipes.glyphs import BASE, COLUMNS, NOTES, method, prompted, reward_row

PLOTS = (
    ("time", "the trained model", "seconds_per_prompt", "seconds for the images of a prompt"),
    ("evaluations", "the trained model", "evaluations", "network evaluations per image, lookahead shared"),
    ("exact", "exact models", "evaluations", "model evaluations per image, lookahead shared"),
)
TABLE = dict(
    title="Lookahead reward guidance on images of glyphs, against its baselines",
    columns=COLUMNS,
    published={},
    comparable=(),
    plots=tuple(
        dict(
            name=name,
            x=x,
            y="overall",
            title=f"GenEval's overall score of {tier} against cost",
            xlabel=xlabel,
            ylabel="overall score (mean of six tasks)",
        )
        for name, tier, x, xlabel in PLOTS
    ),
    notes=NOTES
    + (
        " Exact models: the model of a prompt is a set of images, and the reward the rules themselves, so that these "
        "rows tell how methods work and not how well a reward is learned."
    ),
)


# The best of `lidar_ablations` at local scale by overall score on validation prompts; many differ within noise.
TUNED = {
    "gradient": {"gradient__scale": 3.0},
    "condition": {"condition__rate": 0.1},
    "steering": {"steering__strength": 10.0, "steering__potential": "difference"},
    "lidar": {"lookahead__strength": 100.0},
}
FEW = 10  # steps


def get_config(variant: str = "local"):
    return prompted("lidar_shapes", variant)


def exact_rows(config):
    """The exact tier: every method with its default settings, unless its name states another."""
    debug = config.variant == "debug"

    def row(name, kind="plain", curve=None, **fields):
        row = method(name, kind, {"exact": curve or name}, "exact: ", steps=0 if debug else 100, **fields)
        row["overrides"] |= {"model.net": "picture_oracle", "judge.name": "none"}
        return row | {"pictured": debug}

    yield row("base")
    for count in (2,) if debug else (2, 4):
        yield row(f"best of {count}", "best_of", "best of n", best_of=count)
    for potential in ("difference",) if debug else ("difference", "max"):
        yield row(f"FK {potential}", "steering", steering__potential=potential)
    for count in (8,) if debug else (3, 9, 50):
        yield row(f"LiDAR {count}", "lidar", "LiDAR", lookahead__particles=count)
    if debug:
        return
    for scale in (1.0, 3.0):
        yield row(f"LiDAR 50, scale {scale:g}", "lidar", f"LiDAR, scale {scale:g}", lookahead__scale=scale)
    yield row("LiDAR 50, 10 lookahead steps", "lidar", "LiDAR, 10 lookahead steps", lookahead__steps=10)
    yield row("LiDAR 50 and FK", "lidar_steering", "LiDAR and FK")


def trained(config, name: str, kind="plain", curve=None, steps: int = 0, **fields) -> dict:
    """A row of the trained tier, in the usual number of steps if `steps` is 0."""
    steps = 0 if steps == config.sample.steps else steps
    other = (f"{steps} steps",) if steps else ()
    line = (curve or name, *other)
    row = method(", ".join((name, *other)), kind, {"time": line, "evaluations": line}, steps=steps, **fields)
    return row | {"pictured": not other}


def trained_rows(config):
    """The trained tier: every method in the usual number of steps and in few."""
    debug, full, usual = config.variant == "debug", config.variant != "local", config.sample.steps
    row = functools.partial(trained, config)
    yield row(BASE)
    if debug:
        yield row("gradient", "gradient")
        yield row("DATE, every 2", "condition", condition__period=2)
        yield row("LiDAR 4", "lidar", lookahead__particles=4)
        return
    for steps in (usual, FEW):
        if steps != usual:
            yield row(BASE, steps=steps)
        for count in (2, 4) if full else (4,):
            yield row(f"best of {count}", "best_of", "best of n", steps, best_of=count)
        for period in (1, 4) if full and steps == usual else (1,):
            name = "gradient" if period == 1 else f"gradient, every {period}"
            yield row(
                name, "gradient", "gradient (universal guidance)", steps, gradient__period=period, **TUNED["gradient"]
            )
            name = name.replace("gradient", "DATE")
            yield row(name, "condition", "DATE", steps, condition__period=period, **TUNED["condition"])
        yield row("FK", "steering", steps=steps, **TUNED["steering"])
        for count in (3, 9, 25, 50, 100) if full else (3, 9, 50):
            yield row(f"LiDAR {count}", "lidar", "LiDAR", steps, lookahead__particles=count, **TUNED["lidar"])
    # On validation prompts gradient guidance keeps improving with the number of steps.
    yield row("gradient", "gradient", "gradient (universal guidance)", 2 * usual, **TUNED["gradient"])
    yield row("LiDAR 9", "lidar", "LiDAR", 2 * usual, lookahead__particles=9, **TUNED["lidar"])
    if full:
        yield row("LiDAR 50 and FK", "lidar_steering", **TUNED["lidar"], **TUNED["steering"])


def rows(config):
    yield from exact_rows(config)
    yield reward_row(config)
    yield from trained_rows(config)
