"""Sequences of nucleotides from FASTA and Parquet files, and their division into windows."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from diffusion.data import readers, splits, symbol_tokenizers, tables
from diffusion.data.packing import Block

FASTA = (".fa", ".fna", ".fasta")
BLOCK = 8192
"""Nucleotides (32 windows of 256) per block: windows that begin in one block of a sequence share their split."""
ROWS_PER_BLOCK = 100
"""Consecutive rows of a table that share their split."""
TOKENS_AT_ONCE = 2**21


class LabeledSequence(NamedTuple):
    """A sequence with the label of its species."""

    tokens: UInt8[np.ndarray, " N"]
    species: int
    name: str  # hashed with the number of each block
    split: str  # of its file; "": by md5


def fasta_files(path: str) -> list[Path]:
    """FASTA files of a folder, plain or compressed, sorted by name."""
    return [file for file in readers.files_below(path) if readers.kind(file) in FASTA]


def tokens_of(sequence: str, file: Path) -> UInt8[np.ndarray, " N"]:
    """Tokens of a sequence; an error names the file with a character that is not a nucleotide."""
    try:
        return symbol_tokenizers.nucleotide_ids(sequence)
    except ValueError as error:
        raise ValueError(f"data.path: {file} is not a file of nucleotides ({error}); download it again") from None


def fasta(file: Path, species: int, split: str = "") -> Iterator[LabeledSequence]:
    """Yields the sequences of a FASTA file in order.

    Raises: ValueError naming a file that is not FASTA.
    """

    def sequence() -> LabeledSequence:
        return LabeledSequence(tokens_of("".join(parts), file), species, f"{species}/{name}", split)

    name, parts = None, []
    for line in map(str.strip, readers.lines(file)):
        if line.startswith(">"):
            if name is not None:
                yield sequence()
            name, parts = (line[1:].split() or [""])[0], []
        elif line and name is None:
            found = f"it begins with {line[:20]!r}, not with '>'"
            raise ValueError(f"data.path: {file} is not FASTA: {found}; download it again")
        else:
            parts.append(line)
    if name is None:
        raise ValueError(f"data.path: {file} is not FASTA: it is empty; download it again")
    yield sequence()


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
        yield LabeledSequence(tokens_of(sequence, file), species, f"{name}/{number // ROWS_PER_BLOCK}", split)


def windows(sequences: Iterator[LabeledSequence], source: str, split: str, length: int) -> Iterator[Block]:
    """Yields the windows of one split: `length` nucleotides each, adjacent from the start of each sequence.

    The remainder of each sequence is dropped, and so are windows of which more than half is N. Warns of the number of
    these windows, and of sequences shorter than a window. Where a file does not name its split, the md5 of the name of
    the sequence and the number of the `BLOCK` in which a window begins determines it (`split_of`).
    """
    dropped = short = 0
    for sequence in sequences:
        if sequence.split not in ("", split):
            continue
        if len(sequence.tokens) < length:
            short += (sequence.split or splits.split_of(f"{sequence.name}/0")) == split
            continue
        table = sequence.tokens[: len(sequence.tokens) // length * length].reshape(-1, length)
        blocks, block_of = np.unique(np.arange(len(table)) * length // BLOCK, return_inverse=True)
        # A block is in the split of its file, or else in that of its md5.
        block_splits = [sequence.split or splits.split_of(f"{sequence.name}/{block}") for block in blocks]
        in_split = (np.array(block_splits) == split)[block_of]
        mostly_unknown = (table == symbol_tokenizers.N).sum(1) * 2 > length
        dropped += int((in_split & mostly_unknown).sum())
        rows = np.flatnonzero(in_split & ~mostly_unknown)
        for part in np.array_split(rows, max(1, rows.size * length // TOKENS_AT_ONCE)):
            if part.size:
                yield {"tokens": table[part], "label": np.full(len(part), sequence.species, np.int32)}
    where = f"of the {split} split of {source}"
    for number, message in (
        (short, f"data.length: {short} sequences {where} have fewer than {length} nucleotides"),
        (dropped, f"data.path: {dropped} windows {where} are more than half N"),
    ):
        if number:
            warnings.warn(f"{message} and are left out", stacklevel=2)
