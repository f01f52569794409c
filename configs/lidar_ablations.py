"""Settings of the methods of `lidar_shapes` on validation prompts, where they are tuned.

LiDAR's particles, reward strength (lambda), scale, stop and lookahead steps; the strengths of gradient guidance, DATE
and FK steering; the steps of the sampler itself. The trained model and the reward are shared with `lidar_shapes`.
"""

from configs.recipes.glyphs import BASE, COLUMNS, NOTES, method, prompted, reward_row

# A field of `lookahead`: its label, its value in the other rows, and all of its values.
SWEEPS = {
    "particles": ("lookahead particles", 25, (3, 9, 25, 50, 100)),
    "strength": ("strength of the reward (lambda)", 5000.0, (1.0, 10.0, 100.0, 5000.0)),
    "scale": ("scale of the guide (s)", 12.5, (1.0, 3.0, 6.0, 12.5, 25.0)),
    "steps": ("steps of the lookahead sampler", 5, (2, 3, 5, 10)),
}
GRADIENTS, RATES, STEERINGS = (1.0, 3.0, 10.0, 30.0, 100.0), (0.01, 0.03, 0.1, 0.5, 2.0), (3.0, 10.0, 30.0)
# Steps of the sampler, 50 in all other rows; STEPPED has the three methods that are compared by them.
STEPS = (10, 20, 50, 100)
PICTURED = (BASE, "best of 4", "gradient, scale 10", "DATE, rate 0.1", "FK difference, strength 10", "LiDAR")
STEPPED = {BASE: ("plain", {}), "LiDAR": ("lidar", {}), "gradient": ("gradient", {"gradient__scale": 10.0})}


def swept(field: str, value: float) -> str:
    """The name of the row where one field of the lookahead has some value."""
    return "LiDAR" if value == SWEEPS[field][1] else f"LiDAR, {field} {value:g}"


def stepped(name: str, steps: int) -> str:
    """The name of a method's row with some number of sampling steps."""
    usual = "gradient, scale 10" if name == "gradient" else name
    return usual if steps == 50 else f"{name}, {steps} sampling steps"


def plot(name: str, xlabel: str, **fields) -> dict:
    title = f"Overall score on validation prompts by {xlabel}"
    return dict(name=name, title=title, xlabel=xlabel, ylabel="overall score (mean of six tasks)", **fields)


TABLE = dict(
    title="Settings of lookahead guidance and of its baselines, on validation prompts",
    columns=COLUMNS,
    published={},
    comparable=(),
    plots=(
        *(
            plot(
                field,
                label,
                series=(("LiDAR", "overall", tuple((swept(field, value), value) for value in values)),),
                references=(("base", "overall", BASE),),
            )
            for field, (label, _, values) in SWEEPS.items()
        ),
        plot(
            "sampling_steps",
            "steps of the sampler",
            series=tuple(
                (name, "overall", tuple((stepped(name, count), count) for count in STEPS)) for name in STEPPED
            ),
        ),
    ),
    notes=NOTES
    + " LiDAR, where no row says other: 25 particles, 5 lookahead steps, lambda 5000, scale 12.5; 50 sampling steps.",
)


def get_config(variant: str = "local"):
    config = prompted("lidar_ablations", variant)
    config.sample.gaussian.split = "validation"
    config.sample.repeats = 1
    if variant != "debug":
        config.sample.steps = 50
        config.sample.gaussian.lookahead.particles = 25
    return config


def rows(config):
    """All rows; only some have their images in the figure, where more would be too small to see."""
    for row in all_rows(config):
        yield row | {"pictured": row["name"] in PICTURED}


def all_rows(config):
    yield reward_row(config)
    yield method(BASE)
    yield method("LiDAR", "lidar")
    if config.variant == "debug":
        yield method(swept("particles", 3), "lidar", lookahead__particles=3)
        return
    for field, (_, usual, values) in SWEEPS.items():
        for value in (value for value in values if value != usual):
            yield method(swept(field, value), "lidar", **{f"lookahead__{field}": value})
    for value in (0.0, 0.5):
        yield method(f"LiDAR, stop {value:g}", "lidar", lookahead__stop=value)
    for value in GRADIENTS:
        yield method(f"gradient, scale {value:g}", "gradient", gradient__scale=value)
    for value in RATES:
        yield method(f"DATE, rate {value:g}", "condition", condition__rate=value, condition__period=1)
    for value in STEERINGS:
        for potential in ("difference", "max"):
            name = f"FK {potential}, strength {value:g}"
            yield method(name, "steering", steering__strength=value, steering__potential=potential)
    for name, (kind, fields) in STEPPED.items():
        for steps in (steps for steps in STEPS if steps != 50):
            yield method(stepped(name, steps), kind, steps=steps, **fields)
    yield method("best of 4", "best_of", best_of=4)
    yield method("deterministic base", eta=0.0)
    yield method("deterministic LiDAR", "lidar", eta=0.0)
