"""What several tasks check of a config alone, before data are read."""

from ml_collections import ConfigDict

from experiments.families import family_of

# Tokens of a text where they are known without data.
TOKENS = {"bytes": lambda text: len(text.encode()), "characters": len}


def check_room(start: int, end: int, length: int, field: str = "sample.prompt") -> None:
    """Raise ValueError where a prompt and a suffix of `start` and `end` tokens leave nothing to write."""
    if start + end >= length:
        raise ValueError(
            f"{field}: {start} + {end} tokens leave nothing of {length} to write; shorten prompt or suffix, or "
            "raise --config.sample.length"
        )


def check_suffix(config: ConfigDict) -> None:
    """Raise ValueError for a suffix before a model that writes from left to right."""
    if config.sample.suffix and family_of(config).CAUSAL:
        raise ValueError("sample.suffix: an autoregressive model cannot read what follows; leave it empty")


def check_prompt(config: ConfigDict, domain: str) -> None:
    """Raise ValueError for a prompt or suffix that the model or the data cannot have, or that is too long."""
    options, length = config.sample, config.sample.length or config.data.length
    check_suffix(config)
    if (options.prompt or options.suffix) and domain in ("image", "values"):
        raise ValueError("sample.prompt: values of ready-made arrays have no text form; leave prompt and suffix empty")
    if config.data.tokenizer in TOKENS:
        tokens = TOKENS[config.data.tokenizer]
        check_room(tokens(options.prompt), tokens(options.suffix), length)
    for name in ("infill", "prefix"):
        if options[name] and (options.prompt or options.suffix or length != config.data.length):
            raise ValueError(f"sample.{name}: goes without sample.prompt, suffix and length")
    if options.infill and options.prefix:
        raise ValueError("sample.prefix: goes without sample.infill")
    if options.prefix:
        check_room(options.prefix, 0, length, "sample.prefix")
