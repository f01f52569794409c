"""The vocabulary that weights were trained with, which is recorded beside them."""

import json
from pathlib import Path

from diffusion.data.tokenizers import Tokenizer
from diffusion.train.weights import within
from experiments.plan import atomic_write

FILE = "vocabulary.json"


def record(folder: Path, tokenizer: Tokenizer) -> None:
    """Write the vocabulary into a folder of weights."""
    fields = {"tokenizer": tokenizer.name, "tokens": tokenizer.vocab_size, "fingerprint": tokenizer.fingerprint}
    atomic_write(folder / FILE, json.dumps(fields, indent=1) + "\n")


def check(folder: Path, tokenizer: Tokenizer) -> None:
    """Raise ValueError where weights were trained with another vocabulary; converted ones have no record."""
    file = within(folder) / FILE
    if not file.exists():
        return
    trained = json.loads(file.read_text())
    if trained["fingerprint"] != tokenizer.fingerprint:
        raise ValueError(
            f"checkpoint: {folder} was trained with another vocabulary ({trained['tokenizer']}, {trained['tokens']} "
            f"tokens) than that of the data ({tokenizer.name}, {tokenizer.vocab_size} tokens); pass data and "
            "data.tokenizer of its training"
        )
