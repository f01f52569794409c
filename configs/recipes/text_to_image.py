"""Images from text by published networks: settings of each backbone and scale, and rows by method."""

from configs.base import defaults
from configs.recipes.table import gaussian_fields, geneval_columns, sampled

COLUMNS = (
    ("image_reward", "ImageReward", ".3f"),
    ("clip_score", "CLIP score", ".4f"),
    ("hps", "HPS v2.1", ".4f"),
    *geneval_columns("GenEval"),
    ("clip_diversity", "CLIP diversity", ".3f"),
    ("evaluations", "NFE per image", ".0f"),
    ("backward_evaluations", "backward", ".0f"),
    ("reward_evaluations", "rewards", ".1f"),
    ("seconds_per_prompt", "s per prompt", ".2f"),
    ("lookahead_seconds_per_prompt", "lookahead s", ".2f"),
    ("annotation_seconds_per_prompt", "annotation s", ".2f"),
    ("sampling_seconds_per_prompt", "sampling s", ".2f"),
    ("memory_gib", "GiB", ".2f"),
    ("prompts", "prompts", ".0f"),
)
NOTES = (
    "Published figures are those of arXiv 2602.03211, on one A100: seconds are for the four images of a prompt. "
    "GenEval is the unweighted mean of its six tasks, by transformers' Mask2Former, whose weights are not those of the "
    "published detector, and colors by CLIP ViT-L/14; from, to: its 95 % bootstrap interval over prompts. CLIP score "
    "and HPS v2.1 are cosines. NFE counts both halves of classifier-free guidance, and a prompt's lookahead samples "
    "are divided among its images; a backward pass comes on top of the forward pass that it needs. CLIP diversity is "
    "the mean squared distance of two images of one prompt in unit features. GiB are those of the largest program by "
    "the compiler, with its weights. FLUX.1-dev is not run: its transformer, "
    "T5 and Hyper-FLUX are not part of this code, and its target sampler is unpublished."
)
# Fields of `sample.gaussian` and `text_to_image` of each published backbone.
BACKBONES = {
    "sd15": {
        "text_to_image.backbone": "sd15",
        "text_to_image.pipeline": "stable-diffusion-v1-5",
        "sample.gaussian.lookahead.scale": 12.5,
        "sample.gaussian.gradient.scale": 15.0,
        "sample.gaussian.condition.rate": 0.1,
        "sample.gaussian.chunk": 25,
    },
    "sdxl": {
        "text_to_image.backbone": "sdxl",
        "text_to_image.pipeline": "stable-diffusion-xl-base-1.0",
        "sample.gaussian.lookahead.scale": 8.0,
        "sample.gaussian.lookahead.path": "karras",
        "sample.gaussian.lookahead.steps": 8,
        "sample.gaussian.gradient.scale": 3.0,
        "sample.gaussian.condition.rate": 2.0,
        "sample.gaussian.chunk": 5,
    },
}
TINY = {"sd15": "tiny", "sdxl": "tiny_xl"}
SAMPLERS = {"DDPM": 1.0, "DDIM": 0.0}  # eta


def text_to_image(table: str, variant: str):
    """The config at one scale: `paper` is GenEval's 553 prompts, `gpu` 60 of them on one accelerator.

    `local` and `debug` run networks of a few thousand parameters with random weights through the same code.
    """
    config = defaults(table, variant)
    config.data.update(source="geneval", tokenizer="values", length=1)
    # GenEval's prompts are beside the weights, unless another path is given.
    config.data.path = config.get_ref("weights") + "/evaluation_metadata.jsonl"
    config.model.update(net="text_to_image", dtype="bfloat16")
    config.process.schedule = "scaled_linear"
    config.sample.update(batch=1, steps=100)
    config.sample.gaussian.update(guidance=7.5, images=4)
    config.geneval.detector = "mask2former-swin-small-coco-instance"
    if variant == "gpu":
        config.sample.gaussian.prompts = 60
    if variant in ("local", "debug"):
        config.data.update(source="geneval_examples", path="")
        config.model.dtype = "float32"
        config.text_to_image.random = True
        config.geneval.update(detector="none", clip="random")
        config.sample.update(steps=20 if variant == "local" else 4)
        config.sample.gaussian.update(images=4 if variant == "local" else 2, prompts=0 if variant == "local" else 2)
    return config


def method(
    config, backbone: str, sampler: str, name: str, kind: str = "plain", steps: int = 0, prefix: str = "", **fields
) -> dict:
    """A row of one backbone and sampler by one method, in the usual number of steps if `steps` is 0.

    `fields` are those of `sample.gaussian`, with a__b for field b of section a, and text_to_image__b for those.
    """
    small = config.variant in ("local", "debug")
    usual = {"DDPM": 100, "DDIM": 50}[sampler]
    overrides = BACKBONES[backbone] | {"sample.gaussian.method": kind, "sample.gaussian.eta": SAMPLERS[sampler]}
    overrides["sample.steps"] = config.sample.steps if small else steps or usual
    of_model = {key: value for key, value in fields.items() if key.startswith("text_to_image__")}
    overrides |= {key.replace("__", "."): value for key, value in of_model.items()}
    overrides |= gaussian_fields(name, {key: value for key, value in fields.items() if key not in of_model})
    if small:
        overrides |= {"text_to_image.backbone": TINY[backbone], "text_to_image.unet": ""}
        overrides |= {"sample.gaussian.lookahead.weights": "", "sample.gaussian.lookahead.lora": ""}
    row = sampled(f"{prefix}{name}", overrides)
    return row | {"verbs": ("sample", "geneval") if config.geneval.detector != "none" else ("sample",)}
