"""Types of sources, and the error for missing data."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from diffusion.data.packing import Block
from diffusion.data.tokenizers import Tokenizer


class Pair(NamedTuple):
    """A source, its target, and all references of the source where there are several."""

    source: str
    target: str
    references: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Source:
    """Texts (str) or pairs (Pair) of each split: `documents[split]()` is a new pass over them, in a fixed order."""

    name: str
    documents: Mapping[str, Callable[[], Iterator[Any]]]
    content_hash: str
    separated: bool = True  # False: one continuous text, without EOS between its pieces
    paper_split: str = "validation"  # the split on which the MDLM code evaluates zero-shot perplexity
    in_memory: bool = False  # True: small, so that its examples are not written to the cache
    missing: str = ""  # why there are no splits, where the files are not given


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """Examples of each split: `splits[split]()` starts a new pass over blocks of values 0 .. vocab_size-1."""

    name: str
    splits: Mapping[str, Callable[[], Iterator[Block]]]
    length: int
    vocab_size: int
    image: tuple[int, int, int] | None = None  # height, width, colors; rows are channel-major (c, h, w)
    labels: int = 0  # number of classes; 0: no labels
    content_hash: str = ""  # of the files of a source too large for memory; "": the examples are hashed
    domain: str = "values"  # image, molecules, genomes or values
    label_names: tuple[str, ...] = ()
    tokenizer: Tokenizer | None = None  # None: tokens are plain numbers
    start: int | None = None  # first token of every example, and of every sample
    shuffled: bool = False  # whether to permute examples in a fixed order, so that any first ones are a fair sample
    missing: str = ""  # why there are no splits, where the files are not given


class MissingData(ValueError):
    """Files of a source that are not there."""


def missing_data(name: str, expected: str, path: str, where: str) -> MissingData:
    """Error for missing data, which names the field and the origin of the data."""
    place = f"in {path!r}" if path else "(data.path is empty)"
    return MissingData(
        f"data.path: {name} expects {expected} {place}; pass --config.data.path=FOLDER. To get it: {where}"
    )
