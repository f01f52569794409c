"""Fields of `config.data`, with their defaults and checks."""

import dataclasses
import os
from pathlib import Path
from typing import Any

PACKINGS = ("wrapped", "padded")
DOCUMENTS = ("file", "paragraph", "line")
READY_MADE = ("values", "smiles", "nucleotides")  # tokenizers of sources whose examples are ready-made


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Settings of a data set: its source, its tokenizer, and the packing of tokens into examples of one length."""

    source: str = "python_stdlib"  # one of sources.SOURCES
    path: str = ""  # file or folder of the source; python_stdlib needs none
    # bytes | characters | bpe | gpt2 | wordpiece | file; of ready-made examples: values | smiles | nucleotides
    tokenizer: str = "bpe"
    tokenizer_path: str = ""  # vocabulary file or folder (gpt2, wordpiece, file)
    vocab_size: int = 2048  # tokens of a trained BPE, EOS included; other tokenizers determine their own size
    alphabet: str = ""  # characters: the symbols in id order; empty: those of the training split
    length: int = 128  # tokens per example
    packing: str = "wrapped"  # wrapped | padded
    bos_eos: bool = True  # wrapped: every example is BOS + (length - 2) tokens + EOS
    symbols27: bool = False  # enwiki2018: the 27-symbol form (a-z and space)
    document: str = "file"  # text_files: file | paragraph | line
    detokenize: bool = True  # undo the word tokenization of wikitext, ptb, lm1b, lambada, scientific papers
    validation_documents: int = 100_000  # openwebtext: the last documents are the validation split
    validation_images: int = 5000  # mnist, cifar10: the last training images; 0: validation is the test split
    flip: bool = False  # images: mirror each training example left to right with probability 1/2
    cache_dir: str = ""  # empty: $XDG_CACHE_HOME/diffusion or ~/.cache/diffusion

    @property
    def cache(self) -> Path:
        """Folder that holds trained tokenizers and packed examples."""
        return cache_folder(self.cache_dir)


def cache_folder(folder: str) -> Path:
    """`data.cache_dir`, or by default the folder "diffusion" in the user's cache."""
    if folder:
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffusion"


def read_settings(data: Any) -> DataSettings:
    """Reads the fields from any object with attributes (a config, a dataclass); absent fields keep their defaults.

    Raises: ValueError naming the field for a value of the wrong type, or an unknown or impossible one.
    """
    values = {}
    for field in dataclasses.fields(DataSettings):
        value = getattr(data, field.name, field.default)
        value = field.default if value is None else value
        kind = type(field.default)
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if kind is bool and isinstance(value, int) and value in (0, 1):
            value = bool(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(f"data.{field.name}: expected {kind.__name__}, got {value!r}")
        values[field.name] = value
    settings = DataSettings(**values)
    ends = settings.packing == "wrapped" and settings.bos_eos and settings.tokenizer not in READY_MADE
    shortest = 3 if ends else 1
    _one_of("packing", settings.packing, PACKINGS)
    _one_of("document", settings.document, DOCUMENTS)
    if settings.length < shortest:
        raise ValueError(f"data.length: {settings.length} is too short; pass at least {shortest}")
    if settings.validation_documents < 1:
        raise ValueError(f"data.validation_documents: {settings.validation_documents}; pass at least 1")
    if settings.validation_images < 0:
        raise ValueError(f"data.validation_images: {settings.validation_images}; pass 0 or more")
    if settings.tokenizer == "bpe" and settings.vocab_size < 257:
        raise ValueError(
            f"data.vocab_size: {settings.vocab_size} is too small; bpe needs at least 257 (256 bytes and EOS); "
            "images, molecules and genomes have tokenizers of their own"
        )
    return settings


def _one_of(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"data.{field}: unknown {value!r}; known: {', '.join(known)}")
