"""Text at every scale, the autoregressive judge of its samples, and rows of references."""

from configs.base import defaults
from configs.recipes.small import left_to_right, python_bytes, small, tiny
from configs.recipes.table import evaluated, held_out, sampled

ALPHABET = " abcdefghijklmnopqrstuvwxyz"


def openwebtext(config) -> None:
    """The published recipe: GPT-2 tokens, windows of 1,024, the small network."""
    config.data.update(source="openwebtext", tokenizer="gpt2", vocab_size=50257, length=1024)
    config.data.update(packing="wrapped", bos_eos=True)
    # Micro-batches and recomputation fit a chip of 16 GiB; they do not change a gradient.
    config.model.update(dtype="bfloat16", remat="dots")
    config.optimizer.warmup_first = 0.0
    config.train.update(accumulate=4, evaluate_batches=8)
    config.evaluate.update(split="validation", batch=64)
    config.sample.update(steps=1000, count=1024, batch=64)


def wikipedia(config) -> None:
    """GPT-2 tokens of Wikipedia articles for one accelerator: shorter windows, a smaller network, fewer steps."""
    config.data.update(source="enwiki2018", tokenizer="gpt2", vocab_size=50257, length=512)
    config.data.update(packing="wrapped", bos_eos=True)
    config.model.update(hidden=512, blocks=8, heads=8, dtype="bfloat16")
    config.optimizer.update(learning_rate=1e-3, warmup=300, decay="cosine", floor=0.1)
    config.train.update(steps=3000, batch=128, accumulate=2, ema=0.999)
    config.train.update(evaluate_every=500, evaluate_batches=1, checkpoint_every=1000)
    config.evaluate.update(batch=32, draws=8)
    config.sample.update(steps=256, count=64, batch=32)


def text8(config) -> None:
    """Windows of 256 characters of text8; at local scale of its first 6.9 million characters."""
    if config.variant == "debug":
        tiny(config)
        return
    config.data.update(source="text8", tokenizer="characters", alphabet=ALPHABET, vocab_size=len(ALPHABET), length=256)
    if config.variant == "paper":
        config.model.update(dtype="bfloat16")
        config.train.update(evaluate_batches=8)
        config.evaluate.update(batch=512)
        config.sample.update(steps=1000, count=512, batch=256)
    elif config.variant == "gpu":
        config.model.update(hidden=512, blocks=8, heads=8, dtype="bfloat16")
        config.optimizer.update(learning_rate=1e-3, warmup=500, decay="cosine", floor=0.1)
        config.train.update(steps=10_000, batch=256, ema=0.999)
        config.train.update(evaluate_every=1000, evaluate_batches=8, checkpoint_every=2500)
        config.evaluate.update(batch=256)
        config.sample.update(steps=256, count=64)
    elif config.variant == "local":
        small(config)
        config.data.update(source="text8_prefix", vocab_size=len(ALPHABET))
        config.train.steps = 900
        config.evaluate.update(batches=16)


def at_scale(config, local=small) -> None:
    """OpenWebText (`paper`), Wikipedia (`gpu`), sources of the standard library (`local`, a recipe) or `tiny`."""
    {"paper": openwebtext, "gpu": wikipedia, "local": local, "debug": tiny}[config.variant](config)


def judged(table: str, variant: str, local=python_bytes):
    """The config of a table of samples: data by `at_scale`, MAUVE, and a judge, the row AR or GPT-2 (`paper`)."""
    config = defaults(table, variant)
    at_scale(config, local)
    config.quality.mauve = variant != "debug"
    config.judge.update(dict(name="gpt2", row="") if variant == "paper" else dict(name="row", row="AR"))
    return config


def python_source(config) -> None:
    """Tokens of the standard library's sources at every scale, judged by the row AR."""
    config.judge.update(name="row", row="AR")
    config.quality.parse = True
    if config.variant == "debug":
        tiny(config)
    elif config.variant == "local":
        small(config)
    elif config.variant == "gpu":
        config.data.update(vocab_size=4096, length=512)
        config.model.update(hidden=512, blocks=8, heads=8, dtype="bfloat16")
        config.optimizer.update(learning_rate=1e-3, warmup=200, decay="cosine", weight_decay=0.01)
        config.train.update(steps=3000, batch=128, ema=0.999, evaluate_every=500, evaluate_batches=1)
        config.train.checkpoint_every = 1000
        config.sample.update(count=256, batch=128)
    else:
        config.data.update(vocab_size=4096, length=1024)
        config.model.update(dtype="bfloat16", remat="dots")
        config.train.update(steps=20_000, batch=256, evaluate_every=2000, evaluate_batches=1, checkpoint_every=2000)
        config.sample.update(count=512, batch=128)


def baselines(config, steps, mdlm: dict | None = None):
    """Held-out text, the row AR trained as long as the others, and MDLM with samples in each number of `steps`."""
    yield held_out(seeds=1)
    trained = left_to_right(config) | {"train.steps": config.train.steps}
    yield dict(name="AR", overrides=trained, verbs=("evaluate", "sample"))
    yield from in_steps("MDLM", mdlm or {}, steps)


def in_steps(name: str, overrides: dict, steps, unit: str = "steps"):
    """A row that is evaluated, and a row of samples for each number of steps."""
    yield evaluated(name, overrides)
    for count in steps:
        yield sampled(f"{name}, {count} {unit}", overrides, count, curve=name)


def references(config, steps: int = 2000):
    """Held-out text, and the autoregressive row AR, trained for `steps` at local scale (0: a third of the default)."""
    yield held_out(seeds=1)
    shorter = {"train.steps": steps} if steps and config.variant == "local" else {}
    yield dict(name="AR", overrides=left_to_right(config) | shorter, verbs=("evaluate", "sample"), seeds=1)
