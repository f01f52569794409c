"""The verb `convert`: conversion of public PyTorch checkpoints to folders of weights."""

from pathlib import Path

from experiments.convert import language
from experiments.convert.folder import Conversion, check_target, write
from experiments.convert.pipelines import pipeline
from experiments.convert.rewards import clip, reward

REWARDS = {"clip": clip, "image_reward": reward}
LAYOUTS = (*language.LOADERS, "diffusers", *REWARDS)


def run(
    layout: str | None, checkpoint: str, workdir: Path, lora: str = "", lora_scale: float = 1.0, unet: str = ""
) -> None:
    """Read `checkpoint`, write the folder `workdir`, and print a command that uses it.

    `lora`, with its scale, and `unet` are for pipelines: a LoRA that is added to the U-Net, and another U-Net. Nothing
    is written unless every tensor of the checkpoint is used and every parameter has a value.

    Raises:
      ValueError, FileNotFoundError: for a missing or unreadable file, another kind of file, or an unknown layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"--from: {layout!r} is not a layout; pass one of {', '.join(LAYOUTS)}")
    if not checkpoint:
        what = "FOLDER, a pipeline of diffusers" if layout == "diffusers" else "FILE, .safetensors or .pt, .ckpt, .bin"
        raise ValueError(f"--checkpoint: missing; pass --checkpoint={what}")
    for flag, value in (("lora", lora), ("unet", unet)):
        if value and layout != "diffusers":
            raise ValueError(f"--{flag}: goes with --from=diffusers, not with --from={layout}; leave it out")
    if layout in language.LOADERS:
        return language.convert(layout, checkpoint, workdir)
    check_target(workdir)
    found: Conversion
    if layout == "diffusers":
        found = pipeline(Path(checkpoint), lora, lora_scale, unet)
    else:
        found = REWARDS[layout](Path(checkpoint))
    print(write(found, layout, workdir))
