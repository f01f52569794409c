"""MDM-Prime on images: sub-tokens of pixel values, Fréchet distances at equal evaluations, and bits per dimension.

`paper` is the published recipe on CIFAR-10 and downsampled ImageNet. It needs --config.data.path=FOLDER that holds both
sets at any depth, and for FID and Inception Score the package torch-fidelity and --config.judge.checkpoint=FILE with
Inception's weights. `gpu` and `local` need --config.data.path=FOLDER with the four files of MNIST; they compare samples
with real images in the features of a classifier that the table trains, which is not FID.
"""

from configs.base import defaults
from configs.recipes.images import blobs, cifar10, classifier_rows, mnist
from configs.recipes.table import columns, evaluated, held_out, image_quality, sampled

CIFAR, IMAGENET = "CIFAR-10", "ImageNet-32"
PAIRS = "2/3"  # sub-tokens per color: the three bytes of a pixel as two symbols, each a token of plain masking
SOURCES = {CIFAR: "cifar10", IMAGENET: "imagenet32"}
IMAGES = {CIFAR: 50_000, IMAGENET: 1_281_167}
# Epochs of 512 images at the end of the published runs, chosen by their distance of 2,000 samples.
EPOCHS = {
    CIFAR: {PAIRS: 2250, 1: 2500, 2: 4250, 3: 3500, 4: 2500, 8: 1500},
    IMAGENET: {PAIRS: 600, 1: 675, 2: 975, 3: 1050, 4: 900, 8: 650},
}
# FID of 50,000 samples by evaluations, in the order of EPOCHS; None: not published.
FID = {
    CIFAR: {
        512: (6.29, 4.66, 3.26, 4.81, 5.04, 7.31),
        256: (7.07, 5.00, 3.73, 5.01, 5.08, 8.42),
        128: (12.78, 7.55, 5.22, 6.07, 6.33, 11.89),
    },
    IMAGENET: {
        1024: (None, 7.91, 6.98, None, None, None),
        512: (9.38, 8.12, 7.31, 9.33, 10.33, 13.32),
        256: (10.21, 8.24, 7.64, 9.68, 10.56, 13.61),
        128: (10.48, 9.55, 7.85, 9.74, 10.79, 14.12),
    },
}
# Published samplers, found by search: (temperature ramp, corrector, warp) by digits and evaluations; () is off.
SAMPLERS = {
    CIFAR: {
        PAIRS: {
            512: ((-0.2, 0.75), (4.0, 0.5), ()),
            256: ((-0.15, 1.0), (6.0, 1.0), ()),
            128: ((-0.3, 2.0), (1.0, 2.0), ()),
        },
        1: {
            512: ((-0.15, 1.0), (12.0, 2.0), ()),
            256: ((-0.1, 1.0), (12.0, 1.0), ()),
            128: ((-0.2, 2.0), (2.0, 0.25), (1.0, 0.9, 0.0)),
        },
        2: {
            512: ((-0.2, 2.0), (16.0, 2.0), (1.0, 1.7, 0.0)),
            256: ((-0.4, 2.0), (12.0, 2.0), ()),
            128: ((-0.2, 1.0), (6.0, 2.0), (1.0, 0.8, 0.0)),
        },
        3: {
            512: ((-0.1, 3.5), (18.0, 1.0), (1.0, 1.1, 0.0)),
            256: ((-0.3, 3.0), (20.0, 2.0), (1.0, 0.8, 0.0)),
            128: ((-0.2, 1.0), (2.0, 1.0), (1.0, 0.8, 0.0)),
        },
        4: {
            512: ((-0.2, 3.0), (16.0, 1.0), ()),
            256: ((-0.2, 2.0), (18.0, 2.0), (1.0, 0.8, 0.0)),
            128: ((-0.2, 1.0), (6.0, 2.0), ()),
        },
        8: {
            512: ((-0.15, 3.0), (20.0, 0.5), ()),
            256: ((-0.35, 3.0), (6.0, 1.0), ()),
            128: ((), (6.0, 2.0), ()),
        },
    },
    IMAGENET: {
        PAIRS: {
            512: ((), (6.0, 1.0), ()),
            256: ((), (2.0, 2.0), ()),
            128: ((), (1.0, 2.0), ()),
        },
        1: {
            1024: ((), (6.0, 1.0), ()),
            512: ((), (12.0, 1.0), ()),
            256: ((), (2.0, 0.25), ()),
            128: ((-0.1, 2.0), (2.0, 0.5), (1.0, 0.8, 0.0)),
        },
        2: {
            1024: ((), (6.0, 2.0), ()),
            512: ((), (6.0, 2.0), ()),
            256: ((-0.2, 2.0), (1.0, 2.0), ()),
            128: ((-0.2, 1.0), (), ()),
        },
        3: {
            512: ((-0.1, 3.0), (2.0, 2.5), (1.0, 1.3, 0.0)),
            256: ((-0.1, 0.75), (2.0, 2.5), (1.0, 0.7, 0.0)),
            128: ((-0.1, 0.75), (2.0, 2.5), (1.0, 0.7, 0.0)),
        },
        4: {
            512: ((), (12.0, 2.0), (1.0, 1.1, 0.0)),
            256: ((-0.1, 2.0), (2.0, 0.5), (1.0, 1.3, 0.0)),
            128: ((-0.2, 1.0), (1.0, 2.0), ()),
        },
        8: {
            512: ((-0.2, 3.0), (2.0, 2.0), ()),
            256: ((-0.3, 2.0), (), ()),
            128: ((-0.2, 1.0), (1.0, 1.0), (1.0, 0.6, 0.0)),
        },
    },
}
# Numbers of sub-tokens that are drawn as one pixel value; others are drawn each from its marginal, as published.
TOGETHER = (3, 4)


def name_of(data: str, digits, steps: int = 0) -> str:
    """A row's name."""
    plural = "digit" if digits == 1 else "digits"
    return f"{data}, {digits} {plural}" + (f", {steps} steps" if steps else "")


TABLE = dict(
    title="MDM-Prime on images",
    columns=columns(
        ("bits_per_byte", "bits/dimension (valid bound)", ".3f"),
        ("joint_ce/nats_per_token", "joint_ce (nats, no likelihood)", ".3f"),
        "evaluations",
        ("idle_share", "idle steps", ".1%"),
        *("fid", "inception_score", "inception_score_deviation"),
        *("classifier_frechet", "confidence", "class_entropy"),
        ("invalid_code_rate", "invalid codes", ".2%"),
        "seconds_per_sample",
    ),
    published={
        name_of(data, digits, steps): {"fid": value}
        for data, figures in FID.items()
        for steps, values in figures.items()
        for digits, value in zip(EPOCHS[data], values, strict=True)
        if value is not None
    },
    comparable=("paper",),
    tolerance={"fid": 0.5},
    plots=(image_quality(),),
    notes=(
        "One digit is plain masked diffusion; 2/3 packs a pixel's three bytes into two symbols of 4,096. All rows are "
        "trained as published, on the cross-entropy of every pixel, known or not, without weight or filter, which is "
        "not a bound; bits per dimension are those of the same networks under a valid one (bound_continuous for one "
        "digit, bound_marginal for more). Published FIDs: the authors' README of 2025, 50,000 samples against "
        "CIFAR-10's training images and ImageNet-32's validation images; their errata leave them standing. Sampler "
        "settings are theirs too, found by search for each row. Inception Scores follow torch-fidelity; a third-party "
        "leaderboard lists 9.67 for CIFAR-10, which we could not verify. `paper` does not filter by known digits, as "
        "published, and starts the blocks' scales and shifts at 0 instead of U(-19.6, 19.6). `gpu` and `local` are "
        "MNIST: the distance is that of a small classifier trained on its labels (test images are the reference, the "
        "first row is real images of the validation split), is not an FID, and compares rows of this table at equal "
        "sample counts alone; confidence is the mean probability of the class that the classifier chooses, evenness "
        "the entropy of its choices over its largest value. There digits that contradict known ones are filtered out "
        "in sampling and evaluation."
    ),
)

DIGITS = {"paper": (1, 2, 4, 8), "gpu": (1, 2, 4, 8), "local": (1, 2, 4), "debug": (1, 2)}
STEPS = {"paper": (128, 256, 512), "gpu": (16, 64, 256), "local": (16, 64), "debug": (2, 4)}


def get_config(variant: str = "local"):
    config = defaults("prime_images", variant)
    # As published: alpha = (1 - t)^3, every step one evaluation, the last one fills what is left.
    config.process.update(schedule="polynomial", power=3.0)
    config.objective.name = "cross_entropy"
    config.optimizer.update(learning_rate=1e-4, warmup=0, beta2=0.95, weight_decay=0.01, clip=1e9)
    config.sample.update(end=0.0, final="none")
    config.model.net = "unet"
    config.judge.update(name="classifier", row="Classifier")
    if variant == "debug":
        blobs(config)
    elif variant == "paper":
        cifar10(config)
        config.train.update(steps=steps_of(CIFAR, 2), ema=0.999)
        config.optimizer.decayed = "all"
        config.codec.carry_over = False
    else:
        mnist(config)
        config.optimizer.clip = 1.0
        config.evaluate.also = ("joint_ce",)
    return config


def steps_of(data: str, digits) -> int:
    """Steps of batch 512 in the published epochs."""
    return round(EPOCHS[data][digits] * IMAGES[data] / 512)


def rows(config):
    published = config.variant == "paper" and config.data.source in SOURCES.values()
    yield from published_rows() if published else compared_rows(config)


def published_rows():
    """Every published network and sampler."""
    for data, figures in FID.items():
        for digits in EPOCHS[data]:
            overrides = {"data.source": SOURCES[data], "train.steps": steps_of(data, digits)}
            # The reference of ImageNet's FID; that of CIFAR-10 is its training images.
            overrides |= {"judge.reference": "validation"} if data == IMAGENET else {}
            if digits == PAIRS:
                symbols = {"data.source": f"{SOURCES[data]}_pairs", "data.length": 2048, "data.vocab_size": 4096}
                overrides |= symbols | {"process.power": 2.0, "unet.embedding_channels": 144}
            else:
                overrides |= {"codec.digits": digits}
            yield evaluated(name_of(data, digits), overrides)
            for steps in figures:
                ramp, corrector, warp = SAMPLERS[data][digits].get(steps, ((), (), ()))
                settings = {
                    "sample.steps": steps,
                    "sample.temperature_ramp": ramp or (0.0, 1.0),
                    "sample.corrector": corrector,
                    "sample.warp": warp,
                    "sample.digits_draw": "token" if digits in TOGETHER else "marginal",
                }
                yield sampled(name_of(data, digits, steps), overrides | settings)


def compared_rows(config):
    """The judge, real images, and every number of digits at every number of steps."""
    yield from classifier_rows(config)
    yield held_out("Real images", seeds=1)
    data = "MNIST" if config.data.source == "mnist" else config.data.source
    for digits in DIGITS[config.variant]:
        network = {"codec.digits": digits}
        yield evaluated(name_of(data, digits), network)
        for steps in STEPS[config.variant]:
            yield sampled(name_of(data, digits, steps), network, steps, curve=name_of(data, digits))
