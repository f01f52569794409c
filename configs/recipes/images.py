"""Images: data, networks and sample counts of each scale, and the row of the classifier."""

from configs.recipes.small import tiny


def blobs(config) -> None:
    """The debug scale: synthetic images."""
    tiny(config)
    config.data.update(source="blobs", tokenizer="values", length=64, vocab_size=16)
    config.unet.update(channels=8, multipliers=(1, 2), res_blocks=1, attention_factors=(), head_channels=8, groups=4)
    config.classifier.update(channels=(4,), hidden=8)


def cifar10(config) -> None:
    """The published scale: every training image, FID of 50,000 samples against them."""
    config.data.update(source="cifar10", tokenizer="values", length=3072, vocab_size=256)
    config.data.update(validation_images=0, flip=True)
    # Micro-batches fit a chip of 16 GiB; they do not change a gradient.
    config.train.update(batch=512, accumulate=2, evaluate_every=5000, evaluate_batches=4, checkpoint_every=5000)
    config.evaluate.update(batch=64, draws=4)
    config.sample.update(count=50_000, batch=400)
    config.judge.update(name="inception", row="", reference="train", batch=64)


def mnist(config) -> None:
    """MNIST on one accelerator (`gpu`) or two cores (`local`)."""
    config.data.update(source="mnist", tokenizer="values", length=784, vocab_size=256)
    config.optimizer.update(warmup=50, decay="cosine", beta2=0.98)
    config.judge.batch = 200
    if config.variant == "gpu":
        config.model.dtype = "bfloat16"
        config.unet.update(channels=64, multipliers=(1, 2, 2), res_blocks=2, head_channels=32, dropout=0.1)
        config.optimizer.learning_rate = 1e-3
        config.train.update(steps=10_000, batch=128, ema=0.999)
        config.train.update(evaluate_every=1000, evaluate_batches=8, checkpoint_every=2500)
        config.evaluate.update(batch=200, draws=4)
        config.sample.update(count=5000, batch=500)
    else:
        config.unet.update(channels=16, multipliers=(1, 2, 4), res_blocks=1, head_channels=16, groups=8)
        config.unet.update(dropout=0.0, head_size=1)
        config.optimizer.learning_rate = 1e-2
        config.train.update(steps=1000, batch=16, ema=0.99)
        config.train.update(log_every=20, evaluate_every=500, evaluate_batches=16, checkpoint_every=500)
        config.evaluate.update(batches=8, batch=64, draws=2)
        config.sample.update(count=128, batch=64)


def classifier_rows(config):
    """The classifier in whose features images are compared, where it is the judge."""
    if config.judge.name != "classifier":
        return
    steps = {"gpu": 4000, "local": 800}.get(config.variant, config.train.steps)
    fields = {"model.net": "classifier", "objective.name": "classification", "train.steps": steps}
    fields |= {} if config.variant == "debug" else {"train.batch": 64, "optimizer.learning_rate": 1e-3}
    yield dict(name="Classifier", overrides=fields, verbs=(), shown=False, seeds=1)
