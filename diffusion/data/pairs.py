"""Encoding of pairs: a source text and a target text per example, with one tokenizer for both."""

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Int, Integer, UInt8

from diffusion.data.packing import Block, Statistics, token_dtype
from diffusion.data.settings import DataSettings
from diffusion.data.tokenizers import Tokenizer
from diffusion.data.types import Pair

AT_ONCE = 1024


def normalize(pairs: Iterator[Pair], lower: bool) -> Iterator[Pair]:
    """Converts pairs to lower case if `lower`."""
    for source, target, references in pairs:
        if lower:
            source, target, references = source.lower(), target.lower(), tuple(text.lower() for text in references)
        yield Pair(source, target, references)


def encoded(
    pairs: Iterator[Pair], tokenizer: Tokenizer, lower: bool
) -> Iterator[list[tuple[Pair, tuple[np.ndarray, np.ndarray]]]]:
    """Batches of pairs with the tokens of source and target, which may be empty."""
    pairs = normalize(pairs, lower)
    while batch := list(itertools.islice(pairs, AT_ONCE)):
        sources = tokenizer.encode_batch([pair.source for pair in batch])
        targets = tokenizer.encode_batch([pair.target for pair in batch])
        yield list(zip(batch, zip(sources, targets, strict=True), strict=True))


def blocks(
    pairs: Iterator[Pair], tokenizer: Tokenizer, settings: DataSettings, training: bool, statistics: Statistics
) -> Iterator[Block]:
    """Targets ("tokens") and sources ("source") with EOS, filled with padding of weight 0 to their lengths.

    Pairs without a source or a target are omitted. Pairs that exceed a length are omitted from training and cut in
    validation and test.
    """
    for batch in encoded(pairs, tokenizer, settings.lower):
        present = [sides for _, sides in batch if all(map(len, sides))]
        fitting = [
            (source, target)
            for source, target in present
            if len(source) < settings.source_length and len(target) < settings.length
        ]
        statistics.documents += len(batch)
        statistics.empty += len(batch) - len(present)
        if training:
            statistics.left_out += len(present) - len(fitting)
            present = fitting
        else:
            statistics.cut += len(present) - len(fitting)
        if not present:
            continue
        source, source_weights = filled([side for side, _ in present], settings.source_length, tokenizer)
        tokens, weights = filled([side for _, side in present], settings.length, tokenizer)
        statistics.examples += len(tokens)
        statistics.tokens += int(weights.sum())
        statistics.source_tokens += int(source_weights.sum())
        yield {"tokens": tokens, "weights": weights, "source": source, "source_weights": source_weights}


def filled(
    rows: Sequence[Int[np.ndarray, " _"]], length: int, tokenizer: Tokenizer
) -> tuple[Integer[np.ndarray, "N {length}"], UInt8[np.ndarray, "N {length}"]]:
    """Rows cut to `length` - 1 tokens, with EOS and then padding, and their weights: 1 at tokens, 0 at padding."""
    assert tokenizer.eos_id is not None
    tokens = np.full((len(rows), length), tokenizer.pad_id, token_dtype(tokenizer.pad_id))
    for filled_row, row in zip(tokens, rows, strict=True):
        count = min(len(row), length - 1)
        filled_row[:count] = row[:count]
        filled_row[count] = tokenizer.eos_id
    return tokens, (tokens != tokenizer.pad_id).astype(np.uint8)


def held_out_pairs(read: Callable[[], Iterator[Pair]], tokenizer: Tokenizer, settings: DataSettings) -> Iterator[Pair]:
    """Pairs with a source and a target, which are those of the examples of validation and test."""
    for batch in encoded(read(), tokenizer, settings.lower):
        yield from (pair for pair, sides in batch if all(map(len, sides)))


def both_sides(pairs: Iterator[Pair], lower: bool) -> Iterator[str]:
    """Source, target, source, target, ..."""
    return itertools.chain.from_iterable(pair[:2] for pair in normalize(pairs, lower))


def warn(splits: Iterable[tuple[str, Statistics]], settings: DataSettings) -> None:
    """Warns of pairs that differ from the source or are omitted."""
    limits = f"{settings.source_length} source or {settings.length} target tokens"
    for split, counts in splits:
        where = f"of the {split} split of {settings.source}"
        for count, message in (
            (counts.left_out, f"data.length: {counts.left_out} pairs {where} exceed {limits}: left out"),
            (counts.cut, f"data.length: {counts.cut} pairs {where} exceed {limits}: cut"),
            (counts.empty, f"data.path: {counts.empty} pairs {where} lack a side: left out"),
        ):
            if count:
                warnings.warn(message, stacklevel=4)


def text_of(tokenizer: Tokenizer, ids: Integer[np.ndarray, " L"]) -> str:
    """Text of a target up to its first EOS, without masks and padding."""
    ids = np.asarray(ids).reshape(-1)
    ends = np.flatnonzero(ids == tokenizer.eos_id)
    ids = ids[: ends[0]] if ends.size else ids
    return tokenizer.decode(ids[ids < tokenizer.vocab_size])
