"""MDM-Prime on a density over a 512 x 512 grid, where the exact likelihood of a model is a sum.

Two tokens (x, y) of 1, 2 or 3 sub-tokens each: few enough to sum over all orders of revealing them. The paper shows
samples of such a model; this table has the exact likelihood, the bound and the joint cross-entropy.
"""

from configs.base import defaults
from configs.recipes.small import tiny
from configs.recipes.table import evaluated

# Of the density, in nats per coordinate: half the entropy of a point.
ENTROPY = 5.786279
DIGITS = (1, 2, 3)
TARGETS = ("joint", "marginal")


def name_of(digits: int, target: str) -> str:
    """The name of a row; with one sub-token the two objectives are equal."""
    return "1 digit" if digits == 1 else f"{digits} digits, {target}"


TABLE = dict(
    title="A density whose likelihood is known: exact, bound, and joint cross-entropy",
    columns=(
        ("nats_per_token", "exact -log p (nats/coordinate)", ".4f"),
        ("bound_marginal/nats_per_token", "bound_marginal (nats/coordinate)", ".4f"),
        ("joint_ce/nats_per_token", "joint_ce (nats/coordinate, no likelihood)", ".4f"),
    ),
    published={},
    plots=(
        dict(
            name="digits",
            title="Exact likelihood, bound, and joint cross-entropy",
            xlabel="digits a coordinate",
            ylabel="nats per coordinate",
            series=tuple(
                (
                    (f"trained on {target}", label),
                    key,
                    tuple((name_of(digits, target), digits) for digits in DIGITS),
                )
                for target in TARGETS
                for label, key in (
                    ("exact", "nats_per_token"),
                    ("joint_ce (no likelihood)", "joint_ce/nats_per_token"),
                    ("bound_marginal", "bound_marginal/nats_per_token"),
                )
            ),
            levels={"entropy of the density": ENTROPY},
        ),
    ),
    notes=(
        f"The density's entropy is {ENTROPY:.4f} nats per coordinate: no likelihood can be less, up to the noise of "
        "20,000 test points (0.003; 0.007 with that of one draw of the estimators). The exact value is that of the "
        "sampler which reveals one digit at a time in random order, summed over all orders. bound_marginal lies above "
        "it for the same model; joint_ce may lie below it, where no bound can. Nobody publishes these numbers: the "
        "paper's own toy has another density, another weight, 1 / (t + 0.005), and a time input, which this network "
        "has not: it predicts the same "
        "posterior at every time, as the exact sum needs."
    ),
)


def get_config(variant: str = "local"):
    config = defaults("prime_toy", variant)
    if variant == "debug":
        tiny(config)
    else:
        config.optimizer.learning_rate = 1e-3
        config.train.update(evaluate_batches=4)
        config.evaluate.batch = 1000
    config.data.update(source="density2d", tokenizer="values", vocab_size=512, length=2)
    config.model.net = "mlp"
    config.process.schedule = "linear"
    config.evaluate.update(estimator="nll_any_order", also=("bound_marginal", "joint_ce"))
    if variant == "paper":
        config.model.update(hidden=512, blocks=4)
        config.optimizer.warmup = 1
        config.train.update(steps=1_000_000, batch=4096)
    elif variant == "gpu":
        config.model.update(hidden=512, blocks=4)
        config.optimizer.update(warmup=500, decay="cosine")
        config.train.update(steps=50_000, batch=4096, ema=0.999, evaluate_every=5000, checkpoint_every=10_000)
    elif variant == "local":
        config.model.update(hidden=256, blocks=3, dropout=0.0)
        config.objective.name = "nelbo_reveal"
        config.optimizer.update(learning_rate=2e-3, warmup=100, decay="cosine")
        config.train.update(steps=2500, batch=1024, ema=0.995, log_every=50, evaluate_every=500, checkpoint_every=1000)
    return config


def rows(config):
    yield evaluated(name_of(1, ""))
    for digits in DIGITS[1:]:
        for target in TARGETS:
            yield evaluated(name_of(digits, target), {"codec.digits": digits, "objective.target": target})
