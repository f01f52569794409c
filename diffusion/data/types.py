"""The types of sources, of text and of ready-made arrays, and the message for one that is not there."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from diffusion.data.packing import PackedBlock
from diffusion.data.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Source:
    """Documents per split: `documents[split]()` starts a new pass over them, always in the same order."""

    name: str
    documents: Mapping[str, Callable[[], Iterator[str]]]
    content_hash: str
    separated: bool = True  # False: one running text, whose pieces get no EOS between them
    paper_split: str = "validation"  # the split on which the MDLM code computes its zero-shot column


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """Ready-made examples per split: `splits[split]()` starts a new pass over blocks of values 0 .. vocab_size-1."""

    name: str
    splits: Mapping[str, Callable[[], Iterator[PackedBlock]]]
    length: int
    vocab_size: int
    image: tuple[int, int, int] | None = None  # height, width, colors; rows are channel-major (c, h, w)
    labels: int = 0  # classes that the labels name; 0: no labels
    content_hash: str = ""  # of the files of a source too large for memory; else the examples are hashed
    domain: str = "values"  # image, molecules, genomes or values
    label_names: tuple[str, ...] = ()
    tokenizer: Tokenizer | None = None  # None: tokens are plain numbers
    start: int | None = None  # token that every example begins with, and that every sample is given
    shuffled: bool = False  # put examples in a fixed random order, so that the first of a split are a fair sample


def missing(name: str, expected: str, path: str, where: str) -> ValueError:
    """The one line for data that is not there."""
    place = f"in {path!r}" if path else "(data.path is empty)"
    return ValueError(
        f"data.path: {name} expects {expected} {place}; pass --config.data.path=FOLDER. To get it: {where}"
    )
