"""SCMDM on images: pixel values from a trained MDLM that goes on training with its own prediction as input.

`paper` is discretised CIFAR-10 with a U-Net (needs --config.data.path=FOLDER, the package torch-fidelity, and
--config.judge.checkpoint=FILE with Inception's weights). `gpu` and `local` need --config.data.path=FOLDER with MNIST's
four files; their pictures are compared with real ones in the features of a classifier that the table trains, which is
no FID. `debug` draws its pictures itself.
"""

from configs.base import defaults, tiny
from configs.scmdm import BASE, BOUNDS, FULL, NOTES, after_training, models
from configs.scmdm import rows as shared_rows

STEPS = {"paper": (128,), "gpu": (16, 64, 256), "local": (16, 64), "debug": (2, 4)}
POST_TRAINING = {"paper": 6000, "gpu": 600, "local": 250, "debug": 4}

TABLE = dict(
    title="SCMDM on images: self-conditioning after training, and its controls",
    columns=(
        ("fid", "FID", ".2f"),
        ("classifier_frechet", "Fréchet distance (classifier trained here)", ".2f"),
        ("confidence", "classifier's confidence", ".3f"),
        ("class_entropy", "evenness of classes", ".3f"),
        ("samples", "samples a set", ".0f"),
        ("bits_per_byte", "bits/dimension (SCMDM: two passes)", ".4f"),
        *BOUNDS,
        ("evaluations", "NFE", ".0f"),
        ("seconds_per_sample", "s/sample", ".3f"),
    ),
    published={f"{BASE}, 128 steps": {"fid": 86.48}, f"{FULL}, 128 steps": {"fid": 78.59}},
    comparable=("paper",),
    tolerance={"fid": 3.0},
    plots=(
        dict(
            name="quality",
            x="evaluations",
            y="classifier_frechet",
            title="Distance from real images against cost",
            xlabel="denoiser evaluations a sample (NFE)",
            ylabel="Fréchet distance in a classifier's features",
            log_y=True,
        ),
    ),
    notes=(
        "Published: FID 86.48 for the base and 78.59 for SCMDM; backbone, sampling steps, guidance and number of "
        "samples are not known, and absolute figures are not comparable. `paper` takes the closest public recipe (128 "
        "channels, batch 512, 300,000 steps), with the U-Net of MDM-Prime, which embeds pixel values and is told no "
        "class; its memory enters with the embeddings. `gpu` and `local` are MNIST: the distance is that of a small "
        "classifier trained on its labels (test images are the reference, the first row is real images of the "
        "validation split), is no FID, and compares rows of this table at equal sample counts alone. Confidence is the "
        "mean probability of the class that the classifier chooses, evenness the entropy of its choices over its "
        "largest value. " + NOTES
    ),
)


def get_config(variant: str = "local"):
    config = defaults("scmdm_images", variant)
    config.model.net = "unet"
    config.sample.final = "draw"
    config.judge.update(name="classifier", row="Classifier")
    if variant == "debug":
        tiny(config)
        config.data.update(source="blobs", tokenizer="values", length=64, vocab_size=16)
        config.unet.update(
            channels=8, multipliers=(1, 2), res_blocks=1, attention_factors=(), head_channels=8, groups=4
        )
        config.classifier.update(channels=(4,), hidden=8)
        config.sample.repeats = 2
        return config
    if variant == "paper":
        config.data.update(source="cifar10", tokenizer="values", length=3072, vocab_size=256)
        config.data.update(validation_images=0, flip=True)
        config.model.dtype = "bfloat16"
        config.unet.update(channels=128, multipliers=(1, 2, 2, 2), res_blocks=2, attention_factors=(2,), dropout=0.1)
        config.optimizer.update(learning_rate=2e-4, warmup=5000)
        config.train.update(steps=300_000, batch=512, evaluate_every=5000, evaluate_batches=4, checkpoint_every=5000)
        config.evaluate.update(batch=64, draws=4)
        config.sample.update(count=50_000, batch=500)
        config.judge.update(name="inception", row="", reference="train", batch=64)
        return config
    config.data.update(source="mnist", tokenizer="values", length=784, vocab_size=256)
    config.objective.name = "nelbo_reveal"
    config.optimizer.update(warmup=50, decay="cosine", beta2=0.98, weight_decay=0.01)
    config.judge.batch = 200
    if variant == "gpu":
        config.model.dtype = "bfloat16"
        config.unet.update(channels=64, multipliers=(1, 2, 2), res_blocks=2, head_channels=32, dropout=0.1)
        config.optimizer.learning_rate = 1e-3
        config.train.update(steps=10_000, batch=128, ema=0.999)
        config.train.update(evaluate_every=1000, evaluate_batches=8, checkpoint_every=2500)
        config.evaluate.update(batch=200, draws=4)
        config.sample.update(count=1000, repeats=5, batch=500)
    else:
        config.unet.update(channels=16, multipliers=(1, 2, 4), res_blocks=1, head_channels=16, groups=8)
        config.unet.update(dropout=0.0, head_size=1)
        config.optimizer.learning_rate = 1e-2
        config.train.update(steps=1500, batch=16, ema=0.99)
        config.train.update(log_every=20, evaluate_every=500, evaluate_batches=16, checkpoint_every=500)
        config.evaluate.update(batches=8, batch=64, draws=2)
        config.sample.update(count=128, repeats=3, batch=64)
    return config


def rows(config):
    if config.variant != "paper":
        steps = {"gpu": 4000, "local": 800}.get(config.variant, config.train.steps)
        fields = {"model.net": "classifier", "objective.name": "classification", "train.steps": steps}
        fields |= {} if config.variant == "debug" else {"train.batch": 64, "optimizer.learning_rate": 1e-3}
        yield dict(name="Classifier", overrides=fields, verbs=(), shown=False, seeds=1)
    networks = dict(models(POST_TRAINING[config.variant], after_training(config, warmup=500)))
    yield from shared_rows(networks, STEPS[config.variant], "Real images")
