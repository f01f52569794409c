"""The verb `convert`: conversion of public PyTorch checkpoints to folders of weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusion.storage import fetched_text
from experiments.convert.folder import Conversion, check_target, write
from experiments.convert.images import prime
from experiments.convert.language import gpt2, mdlm
from experiments.convert.pipelines import pipeline
from experiments.convert.rewards import clip, reward

# What each layout is read by, and the options that it takes.
LAYOUTS: dict[str, tuple[Callable[..., Conversion], tuple[str, ...]]] = {
    "mdlm": (mdlm, ("heads", "tokenizer")),
    "prime": (prime, ("heads", "tokenizer", "carry_over")),
    "gstar": (mdlm, ("heads", "tokenizer", "denoiser")),
    "gpt2": (gpt2, ("heads", "tokenizer")),
    "diffusers": (pipeline, ("lora", "lora_scale", "unet")),
    "clip": (clip, ()),
    "image_reward": (reward, ()),
}


def run(layout: str | None, checkpoint: str, workdir: Path, **options: Any) -> None:
    """Read `checkpoint`, write the folder `workdir`, and print commands that use it.

    `options` are those of `LAYOUTS` by name, without a value where not given. Nothing is written unless every tensor of
    the checkpoint is used and every parameter has a value.

    Raises:
      ValueError, FileNotFoundError: for a missing or unreadable file, another kind of file, or an unknown layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"--from: {layout!r} is not a layout; pass one of {', '.join(LAYOUTS)}")
    if not checkpoint:
        what = "FOLDER, a pipeline of diffusers" if layout == "diffusers" else "FILE, .safetensors or .pt, .ckpt, .bin"
        raise ValueError(f"--checkpoint: missing; pass --checkpoint={what}")
    read, known = LAYOUTS[layout]
    given = {
        name: fetched_text(value) if isinstance(value, str) else value
        for name, value in options.items()
        if value not in ("", None)
    }
    for name in given:
        if name not in known:
            fitting = " or ".join(f"--from={each}" for each, (_, names) in LAYOUTS.items() if name in names)
            raise ValueError(f"--{name}: goes with {fitting}, not with --from={layout}; leave it out")
    if options.get("heads") is not None and options["heads"] < 1:
        raise ValueError(f"--heads: {options['heads']} is not a number of heads; pass 1 or more")
    check_target(workdir)
    print(write(read(Path(fetched_text(checkpoint)), **given), layout, workdir))
