"""Whole pipelines of diffusers, with a LoRA or another U-Net, as one folder for `text_to_image.pipeline`."""

from functools import partial
from pathlib import Path

from diffusion.convert.clip import load_clip_text
from diffusion.convert.diffusers import unet_params, vae_params
from diffusion.convert.model_config import component
from diffusion.data.prompt_tokenizers import OPENAI_FILE
from diffusion.types import Params
from experiments.convert.folder import Conversion, draws, files_of
from experiments.families import text_to_image
from experiments.published import TEXT_ENCODERS, conversion, open_weights, pipeline_sizes
from experiments.tasks.pipelines import TOKENIZERS, check_pipeline, pipeline_tokenizer

ROWS = {"sd15": "SD 1.5, DDPM: vanilla", "sdxl": "SDXL, DDPM: vanilla"}
PIPELINE = {"text_to_image.pipeline": "NAME"}
VOCABULARY = ("vocab.json", "merges.txt", OPENAI_FILE)


def pipeline(folder: Path, lora: str = "", lora_scale: float = 1.0, unet: str = "") -> Conversion:
    """What to write for a pipeline: its networks, in the types of their files, and its tokenizers.

    Raises:
      ValueError, FileNotFoundError: for a file that is missing or not readable, and a pipeline of another kind or size.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"--checkpoint: '{folder}' is no folder; pass that of a whole pipeline of diffusers")
    if conversion(folder, "unet"):
        raise ValueError(f"--checkpoint: '{folder}' is converted already; pass the pipeline of diffusers")
    sizes = pipeline_sizes(folder)
    kind = "sdxl" if sizes["xl"] else "sd15"
    backbone = text_to_image.BACKBONES[kind]
    check_pipeline(folder, backbone)
    of_unet = Path(unet) if unet else folder
    loras = [(lora, lora_scale)] if lora else []
    copies = {}
    for number, net in enumerate(backbone.encoders):
        place = folder / TOKENIZERS[number]
        if pipeline_tokenizer(folder, number).library.get_vocab_size() > net.vocab_size:
            raise ValueError(f"tokenizer: '{place}' has more than the {net.vocab_size} tokens of its text encoder")
        copies |= {f"{place.name}/{file}": place / file for file in VOCABULARY if (place / file).is_file()}
    names = TEXT_ENCODERS[: len(backbone.encoders)]

    def text_encoder(number: int) -> Params:
        path = folder / names[number]
        return load_clip_text(backbone.encoders[number], open_weights(folder, path.name), str(path))["params"]

    return Conversion(
        parts={
            "unet": lambda: unet_params(backbone.unet, open_weights(of_unet, "unet"), str(of_unet), loras)["params"],
            "vae": lambda: vae_params(backbone.vae, open_weights(folder, "vae"), str(folder / "vae"))["params"],
        }
        | {name: lambda number=number: text_encoder(number) for number, name in enumerate(names)},
        copies=copies,
        sources=files_of(component(of_unet, "unet") if of_unet.is_dir() else of_unet, "unet")
        | {name: file for part in ("vae", *names) for name, file in files_of(folder / part, part).items()}
        | copies
        | ({"lora": Path(lora)} if lora else {}),
        description={
            "kind": kind,
            "sizes": sizes,
            "fused": {"lora": Path(lora).name, "lora_scale": lora_scale, "unet": unet and of_unet.name},
        },
        # The first images need the pipeline alone.
        uses=partial(
            draws, ROWS[kind], dict.fromkeys(("text_to_image.rewards", "text_to_image.mix"), "()") | PIPELINE, ()
        ),
    )
