"""The tokenizer of a checkpoint, whose files are copied into the converted folder."""

from pathlib import Path
from typing import NamedTuple

from diffusion.data import stored_tokenizers
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
    """The value of `data.tokenizer`, its files by their name in the converted folder, and its record if they are there.

    With the record every job reads the ids of the checkpoint, or is refused.
    """

    name: str
    copies: dict[str, Path]
    record: str = ""


def tokenizer_of(folder: Path, tokens: int, given: bool) -> TokenizerFiles:
    """The tokenizer of a folder, of so many tokens; GPT-2's without its files, where the folder is not `given` for it.

    Raises:
      ValueError: for a given folder without files of a tokenizer, or for one of another size.
    """
    for name, files in FILES:
        if not all((folder / file).is_file() for file in files):
            continue
        tokenizer = SAVED[name](str(folder))
        if tokenizer.vocab_size != tokens:
            raise ValueError(
                f"--tokenizer: '{folder}' has {tokenizer.vocab_size} tokens and the checkpoint {tokens}; pass its own "
                "files"
            )
        return TokenizerFiles(name, {file: folder / file for file in files}, stored_tokenizers.record(tokenizer))
    if given:
        names = " or ".join(" and ".join(files) for _, files in FILES)
        raise ValueError(f"--tokenizer: '{folder}' has no {names}; pass the folder of the checkpoint's tokenizer")
    return TokenizerFiles(PUBLISHED, {})
