"""Pieces of long documents, whose tokens are those of the whole document."""

import re
from collections.abc import Iterable, Iterator

import numpy as np

from diffusion.data.tokenizers import Tokenizer

PIECE = 2**16
"""Characters from which a document is cut."""
CONTEXT = 256
"""Characters on either side of a place, by which it is decided whether the tokens divide there."""
TRIES = 8
# No token of a tokenizer that splits words before it merges goes on from a word to the space behind it.
WORD_END = re.compile(r"(?<=\S)[ \t\r\n]")

Document = str | Iterable[str]
"""A text or, of one that may be too long for memory, its parts in order, cut anywhere."""


def parts_of(document: Document) -> Iterable[str]:
    """Texts that make up a document."""
    return [document] if isinstance(document, str) else document


def regular(document: Document, size: int) -> Iterator[str]:
    """Yields the text of a document in parts of `size` characters, but for the last."""
    rest = ""
    for part in parts_of(document):
        rest += part
        whole = len(rest) // size * size
        yield from (rest[start : start + size] for start in range(0, whole, size))
        rest = rest[whole:]
    if rest:
        yield rest


def pieces(document: Document, tokenizer: Tokenizer) -> Iterator[tuple[str, bool]]:
    """Yields the pieces of a document, and whether each is its last one; a document has at least one."""
    if tokenizer.divides == "nowhere":
        yield "".join(parts_of(document)), True
        return
    rest, size = "", PIECE
    for part in parts_of(document):
        rest, start = rest + part, 0
        while len(rest) - start >= size + CONTEXT:
            stop = division(rest, start, start + size, tokenizer)
            if stop:
                yield rest[start:stop], False
                start, size = stop, PIECE
            else:
                size *= 2
        rest = rest[start:]
    yield rest, True


def division(text: str, start: int, stop: int, tokenizer: Tokenizer) -> int:
    """The last place from `start` to `stop` at which the tokens of a text divide, as far as it is tried, or 0."""
    if tokenizer.divides == "anywhere":
        return stop
    for first in dict.fromkeys((max(start + 1, stop - 4096), start + 1)):
        for match in [*WORD_END.finditer(text, first, stop)][: -TRIES - 1 : -1]:
            place = match.start()
            left, right = text[max(start, place - CONTEXT) : place], text[place : place + CONTEXT]
            whole, *sides = (np.stack(each[:3]) for each in tokenizer.encode_spans([left + right, left, right]))
            if np.array_equal(whole, np.concatenate(sides, axis=1)):
                return place
    return 0
