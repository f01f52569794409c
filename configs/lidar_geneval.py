"""LiDAR on GenEval with Stable Diffusion 1.5 and SDXL, against its baselines (arXiv 2602.03211, Tables 2, 5, 9, 10).

`paper` and `gpu` (SD 1.5, 60 prompts) need --config.weights=FOLDER with the published weights and GenEval's prompts;
experiments/findings/lidar.md lists the files. `local` and `debug` run tiny networks with random weights through the
same code, whose images show nothing.
"""

from typing import Any

from configs.recipes.text_to_image import COLUMNS, NOTES, method, text_to_image

LCM_LORA: dict[str, Any] = dict(
    lookahead__lora="lcm-lora-sdxl/pytorch_lora_weights.safetensors",
    lookahead__steps=4,
    lookahead__solver="consistency",
    lookahead__path="lcm",
    lookahead__guidance=1.0,
)
DMD: dict[str, Any] = dict(
    lookahead__weights="DMD2/dmd2_sdxl_1step_unet_fp16.bin",
    lookahead__steps=1,
    lookahead__solver="consistency",
    lookahead__path="indices",
    lookahead__indices=(399,),
    lookahead__guidance=1.0,
)
DPO: dict[str, Any] = dict(text_to_image__unet="dpo-sd1.5-text2image-v1/unet")
# Metrics in the order of the published tables.
KEYS = ("image_reward", "clip_score", "hps", "overall", "seconds_per_prompt", "memory_gib")


def figures(*values) -> dict:
    """Published figures of a row, of which those that are not published are None."""
    return {key: value for key, value in zip(KEYS, values, strict=False) if value is not None}


SD, SD_DDIM, XL, XL_DDIM = "SD 1.5, DDPM: ", "SD 1.5, DDIM: ", "SDXL, DDPM: ", "SDXL, DDIM: "
PUBLISHED = {
    # Table 2
    f"{SD}vanilla": figures(-0.001, 0.271, 0.263, 0.426, 7.07, 8.90),
    f"{SD}vanilla, 250 steps": figures(0.003, 0.272, 0.264, 0.430, 17.42, 8.90),
    f"{SD}UG": figures(0.326, 0.262, 0.236, 0.355, 58.36, 28.16),
    f"{SD}DATE": figures(0.364, 0.274, 0.267, 0.438, 32.89, 24.71),
    f"{SD}LiDAR, DPM-5, 50": figures(0.384, 0.278, 0.276, 0.478, 13.41, 8.90),
    f"{SD_DDIM}vanilla": figures(-0.125, 0.269, 0.270, 0.423, 3.58, 8.90),
    f"{SD_DDIM}vanilla, 200 steps": figures(-0.112, 0.269, 0.270, 0.415, 14.09, 8.90),
    f"{SD_DDIM}UG": figures(0.201, 0.259, 0.236, 0.344, 29.59, 28.16),
    f"{SD_DDIM}DATE": figures(0.097, 0.271, 0.261, 0.419, 17.12, 24.71),
    f"{SD_DDIM}LiDAR, DPM-5, 50": figures(0.378, 0.278, 0.277, 0.475, 9.92, 8.90),
    f"{XL}vanilla": figures(0.722, 0.282, 0.292, 0.545, 42.00, 33.84),
    f"{XL}vanilla, 250 steps": figures(0.746, 0.283, 0.295, 0.559, 104.10, 33.84),
    f"{XL}UG": figures(0.749, 0.279, 0.287, 0.541, 334.43),
    f"{XL}DATE": figures(0.960, 0.283, 0.294, 0.570, 272.32),
    f"{XL}LiDAR, DPM-8, 50": figures(0.994, 0.285, 0.300, 0.585, 97.99, 33.84),
    f"{XL}LiDAR, LCM-4, 100": figures(1.007, 0.286, 0.300, 0.585, 93.18, 33.84),
    f"{XL}LiDAR, DMD-1, 100": figures(1.006, 0.285, 0.302, 0.598, 78.67, 33.84),
    # Table 5
    f"{SD}LiDAR, DPM-3, 3": figures(0.109, 0.274, None, 0.439, 7.44),
    f"{SD}LiDAR, DPM-5, 3": figures(0.172, 0.275, None, 0.449, 7.54),
    f"{SD}LiDAR, DPM-5, 9": figures(0.211, 0.276, None, 0.453, 8.27),
    f"{SD}DPO, vanilla": figures(0.106, 0.274, None, 0.446, 7.07),
    f"{SD}DPO, LiDAR, DPM-5, 3": figures(0.268, 0.277, None, 0.452, 7.54),
    f"{SD}DPO, LiDAR, DPM-5, 9": figures(0.296, 0.277, None, 0.468, 8.27),
    f"{SD}DPO, LiDAR, DPM-5, 50": figures(0.445, 0.280, None, 0.489, 13.41),
    # Table 10
    f"{XL_DDIM}vanilla": figures(0.538, 0.279, 0.278, 0.510, 21.45, 33.84),
    f"{XL_DDIM}vanilla, 200 steps": figures(0.586, 0.279, 0.283, 0.517, 83.14, 33.84),
    f"{XL_DDIM}UG": figures(0.643, 0.277, 0.277, 0.512, 169.33),
    f"{XL_DDIM}DATE": figures(0.722, 0.280, 0.281, 0.539, 138.47),
    f"{XL_DDIM}LiDAR, DPM-8, 3": figures(0.749, 0.282, 0.287, 0.530, 24.78, 33.84),
    f"{XL_DDIM}LiDAR, DPM-8, 9": figures(0.824, 0.282, 0.291, 0.551, 31.49, 33.84),
    f"{XL_DDIM}LiDAR, DPM-8, 50": figures(0.950, 0.284, 0.293, 0.585, 77.44, 33.84),
    f"{XL_DDIM}LiDAR, LCM-4, 3": figures(0.729, 0.281, 0.288, 0.544, 23.03, 33.84),
    f"{XL_DDIM}LiDAR, LCM-4, 16": figures(0.820, 0.283, 0.291, 0.574, 29.60, 33.84),
    f"{XL_DDIM}LiDAR, LCM-4, 100": figures(0.935, 0.285, 0.294, 0.590, 72.63, 33.84),
    f"{XL_DDIM}LiDAR, DMD-1, 3": figures(0.706, 0.281, 0.287, 0.539, 22.57, 33.84),
    f"{XL_DDIM}LiDAR, DMD-1, 16": figures(0.850, 0.283, 0.294, 0.576, 27.27, 33.84),
    f"{XL_DDIM}LiDAR, DMD-1, 100": figures(0.954, 0.284, 0.297, 0.588, 58.12, 33.84),
    # Table 3
    "FLUX.1-dev: vanilla (not run)": figures(1.019, 0.282, None, 0.645),
    "FLUX.1-dev: LiDAR, Hyper-FLUX-8, 3 (not run)": figures(1.038, 0.282, None, 0.663),
    "FLUX.1-dev: LiDAR, Hyper-FLUX-8, 50 (not run)": figures(1.114, 0.283, None, 0.668),
    "FLUX.1-dev: LiDAR, Hyper-FLUX-8, 100 (not run)": figures(1.198, 0.284, None, 0.667),
}
# Table 9
PUBLISHED[f"{SD}LiDAR, DPM-5, 50"] |= dict(
    lookahead_seconds_per_prompt=5.69, annotation_seconds_per_prompt=0.65, sampling_seconds_per_prompt=7.07
)

TABLE = dict(
    title="GenEval with lookahead reward guidance, Stable Diffusion 1.5 and SDXL",
    columns=COLUMNS,
    published=PUBLISHED,
    comparable=("paper",),
    published_variants=("paper", "gpu"),
    plots=(
        dict(
            name="time",
            x="seconds_per_prompt",
            y="image_reward",
            title="ImageReward against time",
            xlabel="seconds for the images of a prompt",
            ylabel="ImageReward",
        ),
    ),
    notes=NOTES,
)


def get_config(variant: str = "local"):
    return text_to_image("lidar_geneval", variant)


def lidar(config, backbone, sampler, prefix, name, count, **fields):
    """A row of LiDAR with `count` lookahead samples of a cheap sampler."""
    most: dict[str, int] = {"local": 6, "debug": 3}
    count = min(count, most.get(config.variant, 1000))
    row = method(
        config,
        backbone,
        sampler,
        f"LiDAR, {name}, {count}",
        "lidar",
        prefix=prefix,
        lookahead__particles=count,
        **fields,
    )
    return row | {"curve": f"{prefix}LiDAR, {name}"}


def baselines(config, backbone, sampler, prefix, more_steps):
    """Vanilla sampling, also in more steps, and guidance by gradients."""
    single = dict(chunk=1) if backbone == "sdxl" else {}
    yield method(config, backbone, sampler, "vanilla", prefix=prefix)
    if config.variant not in ("local", "debug"):
        yield method(config, backbone, sampler, f"vanilla, {more_steps} steps", steps=more_steps, prefix=prefix)
    yield method(config, backbone, sampler, "UG", "gradient", prefix=prefix, gradient__period=1, **single)
    yield method(config, backbone, sampler, "DATE", "condition", prefix=prefix, condition__period=2, **single)


def rows(config):
    """All rows; the images of those of Table 2 with the sampler DDPM are shown."""
    for row in all_rows(config):
        others = ("DPO", "steps") if config.variant == "debug" else ("DPO", "steps", ", 3", ", 9")
        shown = row["name"].startswith((SD, XL)) and not any(other in row["name"] for other in others)
        yield row | {"pictured": shown}


def all_rows(config):
    small = config.variant in ("local", "debug")
    yield from baselines(config, "sd15", "DDPM", SD, 250)
    for steps, count in ((3, 3), (5, 3), (5, 9), (5, 50)):
        if not small or (steps, count) == (5, 50):
            yield lidar(config, "sd15", "DDPM", SD, f"DPM-{steps}", count, lookahead__steps=steps)
    if not small:
        yield method(config, "sd15", "DDPM", "DPO, vanilla", prefix=SD, **DPO)
        for count in (3, 9, 50):
            yield lidar(config, "sd15", "DDPM", f"{SD}DPO, ", "DPM-5", count, **DPO)
        yield from baselines(config, "sd15", "DDIM", SD_DDIM, 200)
        yield lidar(config, "sd15", "DDIM", SD_DDIM, "DPM-5", 50)
    if config.variant == "gpu":
        return
    yield from baselines(config, "sdxl", "DDPM", XL, 250)
    yield lidar(config, "sdxl", "DDPM", XL, "DPM-8", 50)
    yield lidar(config, "sdxl", "DDPM", XL, "LCM-4", 100, **LCM_LORA)
    yield lidar(config, "sdxl", "DDPM", XL, "DMD-1", 100, **DMD)
    if small:
        return
    yield from baselines(config, "sdxl", "DDIM", XL_DDIM, 200)
    for name, counts, fields in (
        ("DPM-8", (3, 9, 50), {}),
        ("LCM-4", (3, 16, 100), LCM_LORA),
        ("DMD-1", (3, 16, 100), DMD),
    ):
        for count in counts:
            yield lidar(config, "sdxl", "DDIM", XL_DDIM, name, count, **fields)
    for name in (name for name in PUBLISHED if name.startswith("FLUX")):
        row: dict[str, Any] = dict(name=name, overrides={}, verbs=())
        yield row
