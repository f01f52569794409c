"""The type of a source, and the message for one that is not there."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping


@dataclasses.dataclass(frozen=True)
class Source:
    """Documents per split: `documents[split]()` starts a new pass over them, always in the same order."""

    name: str
    documents: Mapping[str, Callable[[], Iterator[str]]]
    content_hash: str
    separated: bool = True  # False: one running text, whose pieces get no EOS between them
    paper_split: str = "validation"  # the split on which the MDLM code computes its zero-shot column


def missing(name: str, expected: str, path: str, where: str) -> ValueError:
    """The one line for data that is not there."""
    place = f"in {path!r}" if path else "(data.path is empty)"
    return ValueError(
        f"data.path: {name} expects {expected} {place}; pass --config.data.path=FOLDER. To get it: {where}"
    )
