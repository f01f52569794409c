"""LiDAR with mixed rewards, against negatives, steering and the best of several (arXiv 2602.03211, Tables 6, 7, 8).

All rows are of Stable Diffusion 1.5 with the sampler DDPM-100 and lookahead samples of DPM-5. Weights and scales are
those of `lidar_geneval`.
"""

from typing import Any

from configs.recipes.text_to_image import COLUMNS, NOTES, method, text_to_image

MIXES = {  # per cent of ImageReward: ImageReward, CLIP score, HPS, GenEval
    0: (0.213, 0.2799, 0.264, 0.454),
    10: (0.278, 0.2801, 0.265, 0.459),
    40: (0.374, 0.2799, 0.268, 0.476),
    90: (0.392, 0.2781, 0.268, 0.473),
    100: (0.384, 0.2781, 0.276, 0.478),
}
COUNTS = (1, 2, 4, 8, 16, 32, 64)
STEERED = {  # ImageReward by the number of target samples
    "SMC": (-0.001, 0.267, 0.568, 0.864, 1.033, 1.129, 1.221),
    "SMC, LiDAR": (0.384, 0.715, 1.007, 1.122, 1.234, 1.307, 1.338),
    "BoN": (-0.001, 0.414, 0.739, 0.948, 1.133, 1.256, 1.346),
    "BoN, LiDAR": (0.384, 0.749, 0.969, 1.136, 1.277, 1.351, 1.418),
    "SMC and BoN": (-0.001, 0.336, 0.692, 1.015, 1.201, 1.331, 1.438),
    "SMC and BoN, LiDAR": (0.384, 0.770, 1.073, 1.218, 1.354, 1.452, 1.510),
}
METHODS = {
    "SMC": "steering",
    "SMC, LiDAR": "lidar_steering",
    "BoN": "best_of",
    "BoN, LiDAR": "lidar_best_of",
    "SMC and BoN": "steering_best_of",
    "SMC and BoN, LiDAR": "lidar_steering_best_of",
}
KEYS = ("image_reward", "clip_score", "hps", "overall")
NEGATIVES = {  # best settings: scale, number, and beta or rho; Table 7
    "Safe-D": ("safe_denoiser", 1.0, 15, 0.05, (-0.001, 0.271, 0.262)),
    "SR": ("repellency", 1.0, 40, 100.0, (0.014, 0.272, 0.263)),
}
PUBLISHED = {
    "vanilla": dict(zip(KEYS, (-0.001, 0.2711, 0.263, 0.426), strict=True)),
    **{f"ImageReward {share} %": dict(zip(KEYS, values, strict=True)) for share, values in MIXES.items()},
    **{name: dict(zip(KEYS, values[-1], strict=False)) for name, values in NEGATIVES.items()},
    **{
        f"{name}, {count}": {"image_reward": value}
        for name, values in STEERED.items()
        for count, value in zip(COUNTS, values, strict=True)
    },
}

TABLE = dict(
    title="Lookahead guidance with mixed rewards, negatives, steering, and the best of several",
    columns=COLUMNS,
    published=PUBLISHED,
    comparable=("paper",),
    published_variants=("paper", "gpu"),
    plots=(
        dict(
            name="samples",
            title="ImageReward by number of target samples",
            xlabel="target samples of a prompt",
            ylabel="ImageReward",
            series=tuple(
                (name, "image_reward", tuple((f"{name}, {count}", count) for count in COUNTS)) for name in METHODS
            ),
        ),
    ),
    notes=NOTES
    + (
        " Mixed rewards are z-scores over the lookahead samples of a prompt, which the paper does not say. SMC "
        "resamples by the difference potential at 20, 40, 60, 80 and 100 % of the steps; SMC and BoN keeps the best "
        "particle."
    ),
)


def get_config(variant: str = "local"):
    return text_to_image("lidar_rewards", variant)


def rows(config):
    small = {"local": 6, "debug": 3}.get(config.variant)
    particles = small or 50

    def row(name: str, kind: str = "plain", **fields: Any) -> dict:
        if kind not in ("plain", "best_of", "steering", "steering_best_of"):
            fields = {"lookahead__particles": particles} | fields
        return method(config, "sd15", "DDPM", name, kind, **fields)

    yield row("vanilla")
    both: dict[str, Any] = dict(text_to_image__rewards=("image_reward", "clip"))
    for share in MIXES:
        mix = (share / 100, 1 - share / 100)
        yield row(f"ImageReward {share} %", "lidar", **both, text_to_image__mix=mix)
    for name, (kind, scale, count, reach, _) in NEGATIVES.items():
        count = min(count, particles - 1)
        yield row(name, kind, negatives__scale=scale, negatives__count=count, negatives__reach=reach)
    for count in COUNTS[: 3 if small else None] if config.variant != "debug" else (2,):
        for name, kind in METHODS.items():
            chosen = kind.endswith("best_of")
            fields: dict[str, Any] = dict(images=1, best_of=count) if chosen else dict(images=count)
            yield row(f"{name}, {count}", kind, **fields) | {"pictured": False}
