"""Public checkpoints of MDM-Prime, on text and on images, as folders for `evaluate` and `sample`."""

from functools import partial
from pathlib import Path
from typing import Any

from configs import prime_images
from diffusion.convert.discrete_unet import TABLE, load_unet
from diffusion.convert.files import open_tensors
from experiments.convert import language
from experiments.convert.folder import Conversion, files_of
from experiments.convert.uses import command

# The two data sets of one size that networks were published for; the folder of a checkpoint has the name of its own.
ORIGINS = {
    prime_images.CIFAR: "CIFAR-10's binary version (https://www.cs.toronto.edu/~kriz/cifar.html)",
    prime_images.IMAGENET: "downsampled ImageNet (https://image-net.org/download-images.php)",
}


def prime(path: Path, **options: Any) -> Conversion:
    """What to write for a checkpoint of MDM-Prime; `options` are those of text.

    Raises:
      ValueError, FileNotFoundError: for a file that is missing, not readable, or of another model.
    """
    if TABLE not in open_tensors(path):
        return language.mdlm(path, **options)
    if options:
        raise ValueError(f"--{min(options)}: goes with text, and '{path}' is a network of images; leave it out")
    sizes, params = load_unet(path)
    return Conversion(
        parts={"weights": lambda: params},
        copies={},
        sources=files_of(path, "weights"),
        description={
            "checkpoint": path.name,
            "sizes": sizes,
            "overrides": network_fields(sizes),
            "start": "mask",
            "tokenizer": "values",
        },
        uses=partial(uses, sizes, prime_images.IMAGENET if "imagenet" in str(path).lower() else prime_images.CIFAR),
    )


def network_fields(sizes: dict[str, Any]) -> dict[str, Any]:
    """Config fields of a network, which `run` compares with those of a job that uses it."""
    others = ("shape", "classes", "base", "digits")
    fields = {f"unet.{name}": value for name, value in sizes.items() if name not in others}
    return {"model.net": "unet", "codec.digits": sizes["digits"]} | fields


def uses(sizes: dict[str, Any], data: str, out: Path) -> list[str]:
    """The commands that use a folder, and what they need."""
    digits = prime_images.PAIRS if sizes["shape"][2] == 2 else sizes["digits"]
    rows = prime_images.name_of(data, digits), prime_images.name_of(data, digits, 128)
    fields = {"checkpoint": str(out)} | network_fields(sizes)
    draw = {"judge.name": "none", "sample.count": 8, "sample.batch": 8, "sample.steps": 32}
    images = out.parent / prime_images.SOURCES[data]
    look = {"data.path": str(images), "evaluate.batches": 1, "evaluate.batch": 8, "evaluate.draws": 1}
    return [
        command("sample", prime_images, rows[1], fields | draw),
        command("evaluate", prime_images, rows[0], fields | look),
        f"(evaluate: after you put {ORIGINS[data]} into {images})",
    ]
