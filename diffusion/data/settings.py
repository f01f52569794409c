"""Fields of `config.data`, with their defaults and checks."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from diffusion.storage import user_cache

CHOICES = {"packing": ("wrapped", "padded"), "document": ("file", "paragraph", "line")}
CHOICES |= {"labels": ("none", "file", "folder", "header"), "resize": ("cover", "stretch", "crop")}
READY_MADE = ("values", "smiles", "nucleotides")  # tokenizers of sources whose examples are ready-made


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Settings of a data set: its source, its tokenizer, and the packing of tokens into examples of one length."""

    source: str = "python_stdlib"  # one of sources.TEXTS, sources.PAIRS or arrays.SOURCES
    path: str = ""  # file, two files A,B, folder, or hf://OWNER/NAME[:CONFIGURATION] of the Hugging Face hub
    # bytes | characters | bpe | gpt2 | wordpiece | file; of pairs: words | bpe | bytes | file; of ready-made examples:
    # values | smiles | nucleotides
    tokenizer: str = "bpe"
    tokenizer_path: str = ""  # vocabulary file or folder (gpt2, wordpiece, file)
    vocab_size: int = 2048  # tokens of a trained BPE, EOS included; other tokenizers determine their own size
    alphabet: str = ""  # characters: the symbols in id order; empty: those of the training split
    length: int = 128  # tokens per example; of pairs: of a target, EOS included
    source_length: int = 128  # pairs: tokens of a source, EOS included
    packing: str = "wrapped"  # wrapped | padded
    bos_eos: bool = True  # wrapped: every example is BOS + (length - 2) tokens + EOS; fasta: one record between them
    symbols27: bool = False  # enwiki2018: the 27-symbol form (a-z and space)
    document: str = "file"  # text_files: file | paragraph | line
    detokenize: bool = True  # undo the word tokenization of wikitext, ptb, lm1b, lambada, scientific papers
    validation_documents: int = 100_000  # openwebtext: the last documents are the validation split
    validation_images: int = 5000  # mnist, cifar10: the last training images; 0: validation is the test split
    resize: str = "cover"  # image_files: cover | stretch | crop; see configs/base.py
    flip: bool = False  # images: mirror each training example left to right with probability 1/2
    source_field: str = "source"  # pair_files: name of the column of sources, or last suffix of their files
    target_field: str = "target"
    reverse: bool = False  # pairs: swap source and target
    lower: bool = False  # pairs: convert both sides to lower case
    seed: int = 0  # of generated pairs
    labels: str = "none"  # fasta: none | file | folder | header, which labels a sequence
    field: str = ""  # text_files, smiles: column of tables; fasta: name or number of the header's field; see configs
    cache_dir: str = ""  # empty: $XDG_CACHE_HOME/diffusion or ~/.cache/diffusion

    @property
    def cache(self) -> Path:
        """Folder of trained tokenizers and packed examples: `cache_dir`, or "diffusion" in the user's cache."""
        if self.cache_dir:
            return Path(self.cache_dir).expanduser()
        return user_cache()


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
    for field, known in CHOICES.items():
        if getattr(settings, field) not in known:
            raise ValueError(f"data.{field}: unknown {getattr(settings, field)!r}; known: {', '.join(known)}")
    if settings.labels != "none" and settings.source != "fasta":
        raise ValueError(f"data.labels: {settings.labels!r} is for fasta, not for {settings.source}; pass none")
    if settings.field and settings.source not in ("text_files", "smiles") and settings.labels != "header":
        raise ValueError(
            "data.field: goes with data.source=text_files or smiles, or with data.labels=header; leave it empty"
        )
    if settings.labels == "header" and not settings.field:
        raise ValueError("data.field: empty; data.labels=header needs the name or the number of a field of the header")
    ends = settings.packing == "wrapped" and settings.bos_eos and settings.tokenizer not in READY_MADE
    least = {"length": 3 if ends else 1, "source_length": 2, "validation_documents": 1, "validation_images": 0}
    for field, number in least.items():
        if getattr(settings, field) < number:
            raise ValueError(f"data.{field}: {getattr(settings, field)} is too small; pass at least {number}")
    if settings.tokenizer == "bpe" and settings.vocab_size < 257:
        raise ValueError(
            f"data.vocab_size: {settings.vocab_size} is too small; bpe needs at least 257 (256 bytes and EOS); "
            "images, molecules and genomes have tokenizers of their own"
        )
    return settings
