"""The scales `local` and `debug` of masked diffusion, and the autoregressive baseline of every scale."""

from ml_collections import ConfigDict


def small(config: ConfigDict) -> ConfigDict:
    """The local scale, minutes on two CPU cores. Tables that use it share its trainings.

    Tuned on the sources of the standard library: a large trained vocabulary, small batches, the bound of low variance,
    and a large learning rate with cosine decay. Blocks are unrolled, which is a third faster on a CPU.
    """
    config.data.vocab_size = 4096
    config.model.update(hidden=128, blocks=4, heads=4, cond_dim=64, dropout=0.0, unroll=4)
    config.objective.name = "nelbo_reveal"
    config.optimizer.update(learning_rate=3e-3, warmup=50, decay="cosine", beta2=0.98, weight_decay=0.01)
    config.train.update(steps=2400, batch=16, ema=0.99, log_every=20, checkpoint_every=300)
    config.train.update(evaluate_every=300, evaluate_batches=16)
    config.sample.update(count=64, batch=64)
    config.judge.batch = 64
    return config


def python_bytes(config: ConfigDict) -> ConfigDict:
    """The local base of the tables of SCMDM and G-Star: bytes of the standard library's sources, trained longer."""
    small(config)
    config.data.update(tokenizer="bytes", vocab_size=257)
    config.train.update(steps=3000, evaluate_every=500, checkpoint_every=500)
    config.evaluate.update(batches=12, draws=4)
    return config


def short_bytes(config: ConfigDict) -> ConfigDict:
    """The local base of the tables that compare processes, which share the trainings of their baselines."""
    python_bytes(config)
    config.train.update(steps=600, evaluate_every=200, checkpoint_every=200)
    config.sample.final = "draw"
    config.judge.update(name="row", row="AR")
    return config


def left_to_right(config: ConfigDict) -> dict:
    """Overrides of an autoregressive row, which needs a third of the steps at local scale."""
    steps = {"train.steps": -(-config.train.steps // 3)} if config.variant == "local" else {}
    return {"objective.name": "autoregressive", "model.causal": True, "model.adaln": False, **steps}


def tiny(config: ConfigDict) -> ConfigDict:
    """The debug scale, small enough for a test that runs the same code."""
    config.model.update(hidden=32, blocks=2, heads=2, cond_dim=16, dropout=0.1)
    config.data.update(tokenizer="bytes", length=32)
    config.optimizer.update(learning_rate=3e-3, warmup=2)
    config.train.update(steps=6, batch=8, log_every=2, evaluate_every=3, evaluate_batches=2, checkpoint_every=3)
    config.train.ema = 0.9
    config.evaluate.update(batches=2, batch=8)
    config.sample.update(count=8, batch=8, steps=4)
    config.judge.update(batch=8)
    config.seeds = (0,)
    return config
