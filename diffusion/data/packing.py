"""Packing of token streams into examples of one length, with exact counts of the text that they cover."""

import dataclasses
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from diffusion.data.pieces import Document, pieces
from diffusion.data.tokenizers import EncodedText, Tokenizer

Item = TypeVar("Item", bound=tuple)
DOCUMENTS_AT_ONCE = 256
CHARACTERS_AT_ONCE = 1_000_000

Block = dict[str, np.ndarray]
"""Columns of a block of examples: "tokens", and by the kind of data "weights", "label", "prompt", "score", "source"."""


@dataclasses.dataclass
class Statistics:
    """Counts over the examples of one split; text outside examples does not count.

    `tokens` counts positions of weight 1, BOS and EOS included; `characters` and `bytes` (UTF-8) count the text that
    these tokens cover. Hence bits per byte = nats per token * tokens / bytes / ln 2 is exact for a mean over the whole
    split. The text of pairs is not counted.
    """

    examples: int = 0
    tokens: int = 0
    characters: int = 0
    bytes: int = 0
    documents: int = 0
    dropped_tokens: int = 0  # after the last whole example (wrapped) or beyond the length (padded)
    source_tokens: int = 0  # of pairs, whose `tokens` are those of the targets
    left_out: int = 0  # training pairs that exceed a length
    cut: int = 0  # validation and test pairs that exceed a length
    empty: int = 0  # pairs without a source or a target, which are omitted
    lossy: int = 0  # pieces of documents whose tokens do not give their text back


def token_dtype(largest_id: int) -> type[np.integer]:
    """Smallest type of stored tokens."""
    return np.uint8 if largest_id < 2**8 else np.uint16 if largest_id < 2**16 else np.int32


def encode_documents(
    documents: Iterable[Document], tokenizer: Tokenizer, statistics: Statistics
) -> Iterator[EncodedText]:
    """Encodes documents, long ones in pieces, in batches, of which one is encoded while the one before is read.

    Tokenizers without bytes by token may drop text, and are asked for it back.
    """
    lossless = tokenizer.token_bytes is not None

    def encoded(batch: list[tuple[str, bool]]) -> list[EncodedText]:
        spans = tokenizer.encode_spans([text for text, _ in batch])
        return [each._replace(ends=last) for each, (_, last) in zip(spans, batch, strict=True)]

    def counted(batch: list[tuple[str, bool]], spans: list[EncodedText]) -> list[EncodedText]:
        for (text, _), each in zip(batch, spans, strict=True) if not lossless else ():
            # Some decoders drop the space before a first word, where a piece may begin.
            statistics.lossy += tokenizer.decode_text(each.ids).lstrip() != text.lstrip()
        statistics.documents += sum(each.ends for each in spans)
        return spans

    with ThreadPoolExecutor(1) as pool:
        waiting: tuple = ()
        for batch in batches(piece for document in documents for piece in pieces(document, tokenizer)):
            running = (batch, pool.submit(encoded, batch))
            if waiting:
                yield from counted(waiting[0], waiting[1].result())
            waiting = running
        if waiting:
            yield from counted(waiting[0], waiting[1].result())


def batches(texts: Iterable[tuple[str, bool]]) -> Iterator[list[tuple[str, bool]]]:
    """Yields texts in groups for a tokenizer, which encodes those of one in parallel."""
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text[0])
        if len(batch) == DOCUMENTS_AT_ONCE or size >= CHARACTERS_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def wrapped(
    encoded: Iterable[EncodedText],
    tokenizer: Tokenizer,
    length: int,
    bos_eos: bool,
    separated: bool,
    statistics: Statistics,
) -> Iterator[Block]:
    """Concatenates documents (each followed by EOS when `separated`), cuts the stream, and drops the remainder.

    With `bos_eos` each example is BOS + `length - 2` tokens + EOS, as in the MDLM code, which drops the remainder of
    every 1,000 documents, where this function drops only the last one of the split. An empty document contributes its
    EOS.
    Raises: ValueError for `bos_eos` with a tokenizer that lacks BOS or EOS.
    """
    eos, bos = tokenizer.eos_id, tokenizer.bos_id
    if bos_eos and (eos is None or bos is None):
        raise ValueError(
            f"data.bos_eos: tokenizer {tokenizer.name!r} of this source has no BOS and EOS; "
            "pass --config.data.bos_eos=False"
        )
    cut = length - 2 if bos_eos else length
    separator = [np.array([[eos], [0], [0]], np.int32)] if separated and eos is not None else []
    dtype = token_dtype(tokenizer.mask_id)
    carry = np.zeros((3, 0), np.int32)  # ids, characters, bytes
    for group in _groups(encoded):
        columns = [carry]
        for document in group:
            columns += [np.stack(document[:3]), *(separator if document.ends else [])]
        stream = np.concatenate(columns, axis=1)
        complete = stream.shape[1] // cut * cut
        carry = stream[:, complete:]
        if complete:
            ids = stream[0, :complete].reshape(-1, cut)
            if bos_eos:
                ids = np.column_stack([np.full(len(ids), bos), ids, np.full(len(ids), eos)])
            _count(statistics, ids.size, stream[:, :complete])
            statistics.examples += len(ids)
            yield {"tokens": ids.astype(dtype)}
    statistics.dropped_tokens += carry.shape[1]


def padded(
    encoded: Iterable[EncodedText], tokenizer: Tokenizer, length: int, statistics: Statistics
) -> Iterator[Block]:
    """BOS + document + EOS, one document per example, cut to `length` or filled with padding of weight 0.

    A document that is cut keeps its EOS, as with the truncation of Hugging Face's tokenizers in the MDLM code. A
    tokenizer without BOS and EOS yields the document alone. Empty documents are omitted.
    """
    for group in _groups(whole(encoded, length)):
        tokens = np.full((len(group), length), tokenizer.pad_id, token_dtype(tokenizer.pad_id))
        weights = np.zeros((len(group), length), np.uint8)
        row = 0
        for columns, dropped in group:
            statistics.dropped_tokens += dropped
            if not columns.shape[1]:
                continue
            if tokenizer.eos_id is not None:
                begin, end = [[tokenizer.bos_id], [0], [0]], [[tokenizer.eos_id], [0], [0]]
                columns = np.concatenate([begin, columns, end], axis=1)
            prefix = columns[:, :length]
            if tokenizer.eos_id is not None and columns.shape[1] > length:
                prefix = np.concatenate([columns[:, : length - 1], columns[:, -1:]], axis=1)
            statistics.dropped_tokens += columns.shape[1] - prefix.shape[1]
            _count(statistics, prefix.shape[1], prefix)
            tokens[row, : prefix.shape[1]] = prefix[0]
            weights[row, : prefix.shape[1]] = 1
            row += 1
        statistics.examples += row
        if row:
            yield {"tokens": tokens[:row], "weights": weights[:row]}


def whole(encoded: Iterable[EncodedText], length: int) -> Iterator[tuple[Int[np.ndarray, "3 N"], int]]:
    """Yields ids, characters and bytes of documents, of long ones the first `length`, and how many tokens follow."""
    start, dropped = np.zeros((3, 0), np.int32), 0
    for piece in encoded:
        columns = np.stack(piece[:3])
        room = len(columns[0]) if piece.ends and not len(start[0]) else length - len(start[0])
        start = np.concatenate([start, columns[:, :room]], axis=1)
        dropped += columns[:, room:].shape[1]
        if piece.ends:
            yield start, dropped
            start, dropped = np.zeros((3, 0), np.int32), 0


def _groups(encoded: Iterable[Item]) -> Iterator[list[Item]]:
    group, size = [], 0
    for item in encoded:
        group.append(item)
        size += np.shape(item[0])[-1]
        if len(group) == DOCUMENTS_AT_ONCE or size >= CHARACTERS_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _count(statistics: Statistics, tokens: int, columns: np.ndarray) -> None:
    statistics.tokens += int(tokens)
    statistics.characters += int(columns[1].sum(dtype=np.int64))
    statistics.bytes += int(columns[2].sum(dtype=np.int64))
