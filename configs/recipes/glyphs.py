"""Images from prompts: data, networks, training and sampling of each scale, and rows by method."""

from configs.base import defaults
from configs.recipes.table import evaluated, gaussian_fields, geneval_columns, sampled

REWARD, BASE = "Reward model", "base"
COLUMNS = (
    *geneval_columns("overall"),
    ("graded", "clauses fulfilled", ".3f"),
    ("reward", "reward", ".3f"),
    ("diversity", "diversity", ".3f"),
    ("evaluations", "NFE per image", ".0f"),
    ("backward_evaluations", "backward", ".0f"),
    ("reward_evaluations", "rewards", ".1f"),
    ("seconds_per_prompt", "s per prompt", ".3f"),
    ("auc", "AUC of the reward", ".3f"),
)
NOTES = (
    "Overall is the unweighted mean of six tasks' shares of correct images, by an exact checker; from, to: its 95 % "
    "bootstrap interval over prompts (the mean over sets of its ends). NFE counts both halves of classifier-free "
    "guidance, and a prompt's lookahead samples are divided among its images; a backward pass comes on top of the "
    "forward pass that it needs. Seconds are for all images of a prompt, measured after compilation, lookahead and "
    "its rewards included. Diversity is the mean squared difference of two images of one prompt, values in [-1, 1]. "
    "The reward is learned from rendered images with Gaussian noise, never from the checker on what is sampled."
)


def prompted(table: str, variant: str):
    """The config of the trained model at one scale; `paper` is this benchmark at full size, for one accelerator."""
    config = defaults(table, variant)
    config.data.update(source="shapes", tokenizer="values", length=768, vocab_size=256)
    config.model.net = "captioned_unet"
    config.process.schedule = "scaled_linear"
    config.objective.name = "denoising"
    config.optimizer.update(learning_rate=2e-3, warmup=100, decay="cosine", beta2=0.99)
    config.judge.update(name="row", row=REWARD)
    config.evaluate.update(batch=200)
    if variant == "debug":
        config.captioned_unet.update(channels=(8,), transformer_layers=(1,), heads=(2,), groups=4)
        config.captioned_unet.update(context_width=16, time_width=16)
        config.reward.update(stem=8, channels=8, blocks=1, hidden=16, word_width=8, groups=4)
        config.train.update(steps=4, batch=8, log_every=2, evaluate_every=2, evaluate_batches=1, checkpoint_every=2)
        config.train.ema = 0.9
        config.optimizer.warmup = 2
        config.evaluate.update(batches=2, batch=8)
        config.sample.update(batch=8, steps=10)
        config.sample.gaussian.update(per_task=2, pool=32)
        config.sample.gaussian.lookahead.update(particles=8, steps=3)
        return config
    config.sample.update(batch=12, steps=50, repeats=3)
    if variant == "local":
        config.captioned_unet.update(channels=(24, 40, 56))
        config.cpu_devices = 2
        config.train.update(steps=1600, batch=64, ema=0.995, log_every=20, checkpoint_every=200)
        config.train.update(evaluate_every=400, evaluate_batches=8)
        config.sample.gaussian.per_task = 6
        return config
    config.model.dtype = "bfloat16"
    config.train.update(steps=20_000, batch=256, ema=0.999, evaluate_every=2000, checkpoint_every=2000)
    config.train.evaluate_batches = 4
    config.sample.update(batch=64)
    config.sample.gaussian.per_task = 12
    if variant == "paper":
        config.captioned_unet.update(channels=(64, 128, 192), layers=2)
        config.train.update(steps=50_000)
        config.sample.update(steps=100)
        config.sample.gaussian.per_task = 60
    return config


def reward_row(config) -> dict:
    """The reward model: its training, and its ranking of held-out images."""
    steps = {"local": 1500, "debug": 4}.get(config.variant, 10_000)
    overrides = {
        "data.source": "shapes_rewards",
        "model.net": "reward",
        "objective.name": "reward",
        "train.steps": steps,
        "train.batch": 8 if config.variant == "debug" else 128,
        "train.ema": 0.99,
        "optimizer.learning_rate": 2.5e-3,
        "optimizer.weight_decay": 0.01,
        "judge.name": "none",
    }
    return evaluated(REWARD, overrides)


def method(
    name: str, kind: str = "plain", curve: str | dict | None = None, prefix: str = "", steps: int = 0, **fields
) -> dict:
    """A row of samples by one method; `fields` are those of `sample.gaussian`, with a__b for field b of section a."""
    overrides = {"sample.gaussian.method": kind} | ({"sample.steps": steps} if steps else {})
    overrides |= gaussian_fields(name, fields)
    row = sampled(prefix + name, overrides)
    if isinstance(curve, dict):
        return row | {"curves": curve}
    return row | ({"curve": curve} if curve else {})
