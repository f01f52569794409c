"""The tokenizer of a checkpoint, whose files are copied into the converted folder."""

from pathlib import Path
from typing import NamedTuple

from diffusion.data.loader import SAVED

# The files of each tokenizer, in the order in which they are looked for.
FILES = (
    ("gpt2", ("vocab.json", "merges.txt")),
    ("gpt2", ("encoder.json", "vocab.bpe")),
    ("wordpiece", ("vocab.txt",)),
    ("file", ("tokenizer.json",)),
)
PUBLISHED = "gpt2"


class TokenizerFiles(NamedTuple):
    """The value of `data.tokenizer`, and its files by their name in the converted folder."""

    name: str
    copies: dict[str, Path]


def tokenizer_of(folder: Path, tokens: int, given: bool) -> TokenizerFiles:
    """The tokenizer of a folder, of so many tokens; GPT-2's without its files, where the folder is not `given` for it.

    Raises:
      ValueError: for a given folder without files of a tokenizer, or for one of another size.
    """
    for name, files in FILES:
        if not all((folder / file).is_file() for file in files):
            continue
        size = SAVED[name](str(folder)).vocab_size
        if size != tokens:
            raise ValueError(
                f"--tokenizer: '{folder}' has {size} tokens and the checkpoint {tokens}; pass its own files"
            )
        return TokenizerFiles(name, {file: folder / file for file in files})
    if given:
        names = " or ".join(" and ".join(files) for _, files in FILES)
        raise ValueError(f"--tokenizer: '{folder}' has no {names}; pass the folder of the checkpoint's tokenizer")
    return TokenizerFiles(PUBLISHED, {})
