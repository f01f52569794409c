"""Sequences of nucleotides from FASTA and Parquet files, and their division into windows."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from diffusion.data import data_files, readers, splits, symbol_tokenizers, tables
from diffusion.data.packing import Block
from diffusion.data.tokenizers import Tokenizer

FASTA = (".fa", ".fna", ".fasta", ".fas", ".ffn", ".frn")
PROTEIN = "EFIJLOPQZ*"
"""Letters of proteins that no code of nucleotides has."""
BLOCK = 8192
"""Nucleotides (32 windows of 256) per block: windows that begin in one block of a sequence share their split."""
ROWS_PER_BLOCK = 100
"""Consecutive rows of a table that share their split."""
TOKENS_AT_ONCE = 2**21


class LabeledSequence(NamedTuple):
    """A sequence with the label of its species."""

    tokens: UInt8[np.ndarray, " N"]
    species: int | None  # None: without labels
    name: str  # hashed with the number of each block
    split: str  # of its file; "": by md5


def fasta_files(path: str) -> list[Path]:
    """FASTA files of a folder, plain or compressed, sorted by name."""
    return [file for file in data_files.files_below(path) if data_files.kind(file) in FASTA]


def tokens_of(parts: Sequence[str], place: Callable[[int], object]) -> UInt8[np.ndarray, " N"]:
    """Tokens of a sequence in parts.

    Raises: ValueError naming the place of a part, by its index, with a character that is not a nucleotide.
    """
    text = "".join(parts)
    try:
        return symbol_tokenizers.nucleotide_ids(text)
    except symbol_tokenizers.NotANucleotide as error:
        index = int(np.searchsorted(np.cumsum([len(part) for part in parts]), error.position, side="right"))
        protein = " (is it a protein?)" if text[error.position].upper() in PROTEIN else ""
        raise ValueError(f"data.path: {place(index)}: {error}{protein}; correct the file, or pass another") from None


def fasta(file: Path, species: int, split: str = "") -> Iterator[LabeledSequence]:
    """Yields the sequences of a FASTA file in order.

    Raises: ValueError naming a file that is not FASTA.
    """
    for record in fasta_records(file):
        name = (record.header.split() or [""])[0]
        yield LabeledSequence(record.tokens(), species, f"{species}/{name}", split)


class Record(NamedTuple):
    """A record of a FASTA file, with the number of its first line."""

    file: Path
    line: int
    header: str
    parts: list[str]

    def tokens(self) -> UInt8[np.ndarray, " N"]:
        """Tokens of its nucleotides; raises ValueError as `tokens_of`."""
        return tokens_of(self.parts, lambda index: f"line {self.line + 1 + index} of {self.file}")


def fasta_records(file: Path) -> Iterator[Record]:
    """Yields the records of a FASTA file in order; blank lines and spaces around lines do not count.

    Raises: ValueError naming a file that is not FASTA, or its line where a carriage return alone ends lines.
    """
    record = None
    for number, line in enumerate(map(str.strip, readers.lines(file)), 1):
        if "\r" in line:
            raise ValueError(f"data.path: line {number} of {file} has carriage returns within; end lines with newlines")
        if line.startswith(">"):
            if record is not None:
                yield record
            record = Record(file, number, line[1:].strip(), [])
        elif record is not None:
            record.parts.append(line)
        elif line:
            found = f"it begins with {line[:20]!r}, not with '>'"
            raise ValueError(f"data.path: {file} is not FASTA: {found}; correct or remove it")
    if record is None:
        raise ValueError(f"data.path: {file} is not FASTA: it is empty; remove it, or download it again")
    yield record


def parquet(
    file: Path, name: str, label_of: Callable[[object], int | None], split: str = ""
) -> Iterator[LabeledSequence]:
    """Yields the sequences of a Parquet file with columns "sequence" and "species_label", labeled by `label_of`.

    Raises: ValueError naming the file for an unknown species, and for a row without a sequence.
    """
    for number, (place, row) in enumerate(tables.rows(file)):
        sequence = readers.text_of(row, ("sequence", "seq"), place)
        label = next((row[field] for field in ("species_label", "species", "label") if field in row), None)
        species = label_of(label)
        if species is None:
            raise ValueError(f"data.path: {place} names the unknown species {label!r}")
        tokens = tokens_of([sequence], lambda _, place=place: place)
        yield LabeledSequence(tokens, species, f"{name}/{number // ROWS_PER_BLOCK}", split)


def frame(sequences: Sequence[UInt8[np.ndarray, " _"]], length: int, tokenizer: Tokenizer) -> UInt8[np.ndarray, "N L"]:
    """Rows <bos>, nucleotides (at most `length` - 2), <eos>, <pad> ... of the sequences."""
    assert tokenizer.bos_id is not None and tokenizer.eos_id is not None and tokenizer.filler_id is not None
    lengths = np.array([len(sequence) for sequence in sequences])
    tokens = np.full((len(sequences), length), tokenizer.filler_id, np.uint8)
    tokens[:, 0] = tokenizer.bos_id
    tokens[:, 1:][np.arange(length - 1)[None] < lengths[:, None]] = np.concatenate(sequences)
    tokens[np.arange(len(tokens)), lengths + 1] = tokenizer.eos_id
    return tokens


def examples_of(
    tokens: UInt8[np.ndarray, " N"], length: int, frame_by: Tokenizer | None = None
) -> tuple[UInt8[np.ndarray, "M L"], Int[np.ndarray, " M"], Bool[np.ndarray, " M"]]:
    """Examples of a sequence, the number of the `BLOCK` in which each begins, and whether at most half of it is N.

    They are windows of `length` nucleotides, adjacent from the start, without the remainder; none of a sequence that is
    shorter. With `frame_by` the whole sequence is one example (see `frame`), if it has 1 to `length` - 2 nucleotides.
    """
    if frame_by is None:
        table = tokens[: len(tokens) // length * length].reshape(-1, length)
    else:
        fits = 0 < len(tokens) <= length - 2
        table = frame([tokens], length, frame_by) if fits else np.empty((0, length), np.uint8)
    unknown = (table == symbol_tokenizers.N).sum(1) * 2 > (table <= symbol_tokenizers.N).sum(1)
    return table, np.arange(len(table)) * length // BLOCK, ~unknown


def examples(
    sequences: Iterator[LabeledSequence],
    source: str,
    split: str,
    length: int,
    frame_by: Tokenizer | None = None,
    split_of: Callable[[str], str] = splits.split_of,
) -> Iterator[Block]:
    """Yields the examples of one split (see `examples_of`), without those of which more than half is N.

    Warns of the number of these, and of sequences that are too short for a window, or too long for a frame. Where a
    file does not name its split, the md5 of the name of the sequence and the number of the block in which an example
    begins determines it (`split_of`).
    """
    dropped = unfit = 0
    for sequence in sequences:
        if sequence.split not in ("", split):
            continue
        table, block_of_row, known = examples_of(sequence.tokens, length, frame_by)
        if not len(table):
            unfit += (sequence.split or split_of(f"{sequence.name}/0")) == split
            continue
        blocks, index = np.unique(block_of_row, return_inverse=True)
        # A block is in the split of its file, or else in that of its md5.
        block_splits = [sequence.split or split_of(f"{sequence.name}/{block}") for block in blocks]
        in_split = (np.array(block_splits) == split)[index]
        dropped += int((in_split & ~known).sum())
        rows = np.flatnonzero(in_split & known)
        for part in np.array_split(rows, max(1, rows.size * length // TOKENS_AT_ONCE)):
            if part.size:
                label = {} if sequence.species is None else {"label": np.full(len(part), sequence.species, np.int32)}
                yield {"tokens": table[part]} | label
    where = f"of the {split} split of {source}"
    limit = f"fewer than {length}" if frame_by is None else f"none, or more than {length - 2},"
    for number, message in (
        (unfit, f"data.length: {unfit} sequences {where} have {limit} nucleotides"),
        (
            dropped,
            f"data.path: {dropped} {'windows' if frame_by is None else 'sequences'} {where} are more than half N",
        ),
    ):
        if number:
            warnings.warn(f"{message} and are left out", stacklevel=2)
