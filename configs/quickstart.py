"""The first table: an autoregressive baseline and MDLM on the standard library's own sources, sampled two ways.

No paper prints these numbers; the table shows the whole machine at work on any computer.
"""

from configs.base import defaults, tiny

TABLE = dict(
    title="Quickstart: Python source, AR against masked diffusion",
    columns=(
        ("bits_per_byte", "bits/byte (test)", ".3f"),
        ("evaluations", "NFE", ".0f"),
        ("generative_perplexity", "gen. perplexity (AR judge)", ".1f"),
        ("entropy", "entropy (nats)", ".3f"),
        ("diversity", "diversity", ".3f"),
        ("parse_rate", "parses", ".3f"),
        ("seconds_per_sample", "s/sample", ".3f"),
    ),
    published={},
    plots=(
        dict(
            name="quality",
            x="evaluations",
            y="generative_perplexity",
            title="Sample quality against cost",
            xlabel="denoiser evaluations a sample (NFE)",
            ylabel="perplexity under the AR judge",
            log_y=True,
        ),
    ),
    notes="",
)

STEPS = {"paper": (32, 64, 128, 256), "gpu": (8, 16, 32, 64, 128), "local": (8, 16, 32, 64, 128), "debug": (2, 4)}


def get_config(variant: str = "local"):
    config = defaults("quickstart", variant)
    config.judge.update(name="row", row="AR")
    config.quality.parse = True
    if variant == "debug":
        return tiny(config)
    if variant == "local":
        # Tuned for minutes on two CPU cores: a large trained vocabulary, small batches, the low-variance bound, a high
        # and falling rate; blocks unrolled, which XLA's CPU compiler makes a third faster.
        config.data.vocab_size = 4096
        config.model.update(hidden=128, blocks=4, heads=4, cond_dim=64, dropout=0.0, unroll=4)
        config.objective.name = "nelbo_reveal"
        config.optimizer.update(learning_rate=3e-3, warmup=50, decay="cosine", beta2=0.98, weight_decay=0.01)
        config.train.update(steps=1500, batch=16, ema=0.99, log_every=20, evaluate_every=250, checkpoint_every=250)
        config.train.evaluate_batches = 16
        config.sample.update(count=64, batch=64)
        config.judge.batch = 64
    elif variant == "gpu":
        config.data.update(vocab_size=4096, length=512)
        config.model.update(hidden=512, blocks=8, heads=8, dtype="bfloat16")
        config.optimizer.update(learning_rate=1e-3, warmup=200, decay="cosine", weight_decay=0.01)
        config.train.update(steps=3000, batch=128, ema=0.999, evaluate_every=500, evaluate_batches=1)
        config.train.checkpoint_every = 1000
        config.sample.update(count=256, batch=128)
    else:
        config.data.update(vocab_size=4096, length=1024)
        config.model.update(dtype="bfloat16", remat="dots")
        config.train.update(steps=20_000, batch=256, evaluate_every=2000, evaluate_batches=1, checkpoint_every=2000)
        config.sample.update(count=512, batch=128)
    return config


def rows(config):
    # Left to right is learned in a third of the steps.
    causal = {
        "objective.name": "autoregressive",
        "model.causal": True,
        "model.adaln": False,
        "train.steps": -(-config.train.steps // 3),
    }
    yield dict(name="Held-out text", overrides={"sample.policy": "data"}, verbs=("sample",))
    yield dict(name="AR", overrides=causal, verbs=("evaluate", "sample"))
    yield dict(name="MDLM", overrides={}, verbs=("evaluate",))
    for policy in ("ancestral", "confidence"):
        for steps in STEPS[config.variant]:
            overrides = {"sample.policy": policy, "sample.steps": steps, "sample.noise": 1.0}
            yield dict(name=f"MDLM, {policy}, {steps} steps", overrides=overrides, verbs=("sample",), curve=policy)
