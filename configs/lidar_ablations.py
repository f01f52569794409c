"""How the methods of `lidar_shapes` depend on their settings, on validation prompts, by which they are to be chosen.

LiDAR's particles, lookahead steps, reward strength (lambda), scale and stop; the strengths of gradient guidance, DATE
and FK steering. It shares the trained model and the reward with `lidar_shapes`.
"""

from configs.shapes import BASE, COLUMNS, NOTES, method, prompted, reward_row

SWEEPS = (
    ("particles", "lookahead particles", "LiDAR"),
    ("strength", "strength of the reward (lambda)", "LiDAR"),
    ("scale", "scale of the guide (s)", "LiDAR"),
)
PARTICLES, STEPS, STRENGTHS, SCALES = (3, 9, 25, 50, 100), (2, 3, 5, 10), (1, 10, 100, 5000), (1, 3, 6, 12.5, 25)
GRADIENTS, RATES, STEERINGS = (1, 3, 10, 30, 100), (0.1, 0.5, 2, 5), (3, 10, 30)


def at(name: str, value: float) -> str:
    """The name of a row of a sweep."""
    return f"LiDAR, {name} {value:g}"


TABLE = dict(
    title="Settings of lookahead guidance and of its baselines, on validation prompts",
    columns=COLUMNS,
    published={},
    comparable=(),
    plots=tuple(
        dict(
            name=name,
            title=f"LiDAR: overall score on validation prompts, by {label}",
            xlabel=label,
            ylabel="overall score (mean of six tasks)",
            series=(("LiDAR", "overall", tuple((at(name, value), value) for value in values)),),
            references=(("base", "overall", BASE),),
        )
        for (name, label, _), values in zip(SWEEPS, (PARTICLES, STRENGTHS, SCALES), strict=True)
    ),
    notes=NOTES
    + " What is not named is as the configs have it: 25 particles, 5 lookahead steps, lambda 5000, scale 12.5.",
)


def get_config(variant: str = "local"):
    config = prompted("lidar_ablations", variant)
    config.sample.gaussian.split = "validation"
    config.sample.repeats = 1
    if variant != "debug":
        config.sample.gaussian.lookahead.particles = 25
    return config


def rows(config):
    yield reward_row(config)
    yield method(BASE)
    if config.variant == "debug":
        yield method(at("particles", 3), "lidar", lookahead__particles=3)
        return
    for value in PARTICLES:
        yield method(at("particles", value), "lidar", lookahead__particles=value)
    for value in STEPS:
        yield method(at("steps", value), "lidar", lookahead__steps=value)
    for value in STRENGTHS:
        yield method(at("strength", value), "lidar", lookahead__strength=float(value))
    for value in SCALES:
        yield method(at("scale", value), "lidar", lookahead__scale=float(value))
    yield method(at("stop", 0), "lidar", lookahead__stop=0.0)
    yield method(at("stop", 0.5), "lidar", lookahead__stop=0.5)
    for value in GRADIENTS:
        yield method(f"gradient, scale {value:g}", "gradient", gradient__scale=float(value))
    for value in RATES:
        yield method(f"DATE, rate {value:g}", "condition", condition__rate=float(value), condition__period=1)
    for value in STEERINGS:
        for potential in ("difference", "max"):
            name = f"FK {potential}, strength {value:g}"
            yield method(name, "steering", steering__strength=float(value), steering__potential=potential)
    yield method("best of 4", "best_of", best_of=4)
    yield method("deterministic base", eta=0.0)
    yield method("deterministic LiDAR", "lidar", eta=0.0)
