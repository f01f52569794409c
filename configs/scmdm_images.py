"""SCMDM on images: pixel values from an MDLM trained further with its own prediction as input.

`paper` is discretized CIFAR-10 with a U-Net (needs --config.data.path=FOLDER, the package torch-fidelity, and
--config.judge.checkpoint=FILE with Inception's weights). `gpu` and `local` need --config.data.path=FOLDER with the four
files of MNIST; they compare samples with real images in the features of a classifier that the table trains, which is
not FID. `debug` draws its images.
"""

from configs.base import defaults
from configs.recipes.images import blobs, cifar10, classifier_rows, mnist
from configs.recipes.scmdm import BASE, BOUNDS, FULL, NOTES, domain_rows, networks
from configs.recipes.table import columns, image_quality

STEPS = {"paper": (128,), "gpu": (16, 64, 256), "local": (16, 64), "debug": (2, 4)}
POST_TRAINING = {"paper": 6000, "gpu": 600, "local": 250, "debug": 4}

TABLE = dict(
    title="SCMDM on images: self-conditioning after training, and its controls",
    columns=columns(
        *("fid", "classifier_frechet", "confidence", "class_entropy", "samples"),
        ("bits_per_byte", "bits/dimension (SCMDM: two passes)", ".4f"),
        *BOUNDS,
        *("evaluations", "seconds_per_sample"),
    ),
    published={f"{BASE}, 128 steps": {"fid": 86.48}, f"{FULL}, 128 steps": {"fid": 78.59}},
    comparable=("paper",),
    tolerance={"fid": 3.0},
    plots=(image_quality(),),
    notes=(
        "Published: FID 86.48 for the base and 78.59 for SCMDM; backbone, sampling steps, guidance and number of "
        "samples are not known, and absolute figures are not comparable. `paper` takes the closest public recipe (128 "
        "channels, batch 512, 300,000 steps), with the U-Net of MDM-Prime, which embeds pixel values and is "
        "unconditional; its memory enters with the embeddings. `gpu` and `local` are MNIST: the distance is that of "
        "a small classifier trained on its labels (test images are the reference, the first row is real images of the "
        "validation split), is not an FID, and compares rows of this table at equal sample counts alone. Confidence "
        "is the "
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
        blobs(config)
        config.sample.repeats = 2
    elif variant == "paper":
        cifar10(config)
        config.model.dtype = "bfloat16"
        config.unet.update(channels=128, multipliers=(1, 2, 2, 2), res_blocks=2, attention_factors=(2,), dropout=0.1)
        config.optimizer.update(learning_rate=2e-4, warmup=5000)
        config.train.steps = 300_000
    else:
        mnist(config)
        config.objective.name = "nelbo_reveal"
        config.optimizer.weight_decay = 0.01
        if variant == "gpu":
            config.sample.update(count=1000, repeats=5)
        else:
            config.train.steps = 1500
            config.sample.repeats = 3
    return config


def rows(config):
    yield from classifier_rows(config)
    models = networks(config, POST_TRAINING[config.variant], warmup=500)
    yield from domain_rows(models, STEPS[config.variant], "Real images")
