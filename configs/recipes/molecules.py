"""Molecules of QM9 at every scale; `debug` draws its molecules."""

from ml_collections import ConfigDict

from configs.recipes.small import small, tiny


def qm9(config: ConfigDict) -> None:
    """The recipe of SCMDM for QM9 (`paper`), and the same data at smaller sizes."""
    config.sample.final = "draw"
    if config.variant == "debug":
        tiny(config)
        config.data.update(source="simple_molecules", tokenizer="smiles", length=16, vocab_size=9)
        config.sample.repeats = 2
        return
    if config.variant == "paper":
        config.optimizer.update(learning_rate=3e-4, warmup=1000, decay="cosine", floor=3e-6)
        config.train.update(steps=25_000, batch=2048, evaluate_every=2500, checkpoint_every=2500)
        config.evaluate.update(batch=512, draws=4)
        config.sample.update(count=1024, repeats=5, batch=1024)
    else:
        small(config)
        config.train.update(steps=2000, batch=64)
        config.evaluate.update(batches=32, batch=64, draws=2)
        config.sample.update(count=512, repeats=4, batch=128)
        if config.variant == "gpu":
            config.model.update(hidden=256, blocks=8, heads=8, cond_dim=128, dropout=0.1, dtype="bfloat16", unroll=1)
            config.optimizer.update(learning_rate=1e-3, warmup=500)
            config.train.update(steps=20_000, batch=512, ema=0.999, evaluate_every=2000, checkpoint_every=2000)
            config.evaluate.update(batches=0, batch=512, draws=4)
            config.sample.update(count=1024, repeats=5, batch=1024)
    config.data.update(source="qm9", tokenizer="smiles", length=32, vocab_size=44)
