"""Sequences of nucleotides out of FASTA and Parquet files, and the windows that they are cut into."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from diffusion.data import readers, splits, symbol_tokenizers
from diffusion.data.packing import PackedBlock

FASTA = (".fa", ".fna", ".fasta")
BLOCK = 8192
"""Nucleotides (32 windows of 256): windows that begin in the same block of a sequence are in the same split."""
RUN = 100
"""Rows of a table that are in the same split."""
TOKENS_AT_ONCE = 2**21


class Stretch(NamedTuple):
    """A sequence, the number of its species, a name for the md5 of its blocks, and the split of its file or ""."""

    tokens: UInt8[np.ndarray, " N"]
    species: int
    name: str
    split: str


def fasta_files(path: str) -> list[Path]:
    """FASTA files of a folder, compressed or not, sorted by name."""
    folder = Path(path).expanduser()
    if not path or not folder.is_dir():
        return []
    return sorted(file for file in folder.rglob("*") if file.is_file() and readers.kind(file) in FASTA)


def stem(file: Path) -> str:
    """The file's name without the suffixes of layout and compression ("A.thaliana" of "A.thaliana.fa.gz")."""
    name = file.name
    for suffix in readers.COMPRESSED:
        name = name.removesuffix(suffix)
    return Path(name).stem


def tokens_of(sequence: str, file: Path) -> UInt8[np.ndarray, " N"]:
    """Tokens of a sequence. Raises: ValueError naming the file for what is no nucleotide."""
    try:
        return symbol_tokenizers.nucleotide_ids(sequence)
    except ValueError as error:
        raise ValueError(f"data.path: {file} is no file of nucleotides ({error}); get it anew") from None


def fasta(file: Path, species: int, split: str = "") -> Iterator[Stretch]:
    """The sequences of a FASTA file, in its order.

    Raises: ValueError naming a file that is no FASTA.
    """

    def stretch() -> Stretch:
        return Stretch(tokens_of("".join(parts), file), species, f"{species}/{name}", split)

    name, parts = None, []
    for line in readers.lines(file):
        line = line.strip()
        if line.startswith(">"):
            if name is not None:
                yield stretch()
            name, parts = (line[1:].split() or [""])[0], []
        elif line and name is None:
            raise ValueError(f"data.path: {file} is no FASTA: it begins with {line[:20]!r}, not with '>'; get it anew")
        else:
            parts.append(line)
    if name is None:
        raise ValueError(f"data.path: {file} is no FASTA: it is empty; get it anew")
    yield stretch()


def parquet(file: Path, name: str, number: Callable[[object], int | None], split: str = "") -> Iterator[Stretch]:
    """The sequences of a Parquet file with a column "sequence" and one of species, which `number` gives the label of.

    Raises: ValueError naming the file for an unknown species, and for a row without a sequence.
    """
    columns = (("sequence", "seq"), ("species_label", "species", "label"))
    for row, (sequence, label) in enumerate(readers.parquet_rows(file, columns)):
        species = number(label)
        if species is None:
            raise ValueError(f"data.path: row {row} of {file} names the species {label!r}, which is not known")
        if not isinstance(sequence, str):
            raise ValueError(f"data.path: row {row} of {file} has {sequence!r} for a sequence")
        yield Stretch(tokens_of(sequence, file), species, f"{name}/{row // RUN}", split)


def windows(stretches: Iterator[Stretch], source: str, split: str, length: int) -> Iterator[PackedBlock]:
    """The windows of one split: `length` nucleotides each, side by side from the start of every sequence.

    What is left at the end of a sequence is dropped, and so are windows that are N by more than half; a warning counts
    these, and another one sequences that are shorter than a window. Where a file does not tell its split, the md5 of
    the sequence's name and of the number of the `BLOCK` in which a window begins does (`split_of`).
    """
    dropped = short = 0
    for stretch in stretches:
        if stretch.split not in ("", split):
            continue
        if len(stretch.tokens) < length:
            short += (stretch.split or splits.split_of(f"{stretch.name}/0")) == split
            continue
        table = stretch.tokens[: len(stretch.tokens) // length * length].reshape(-1, length)
        mine = np.ones(len(table), bool)
        if not stretch.split:
            blocks, block_of = np.unique(np.arange(len(table)) * length // BLOCK, return_inverse=True)
            mine = np.array([splits.split_of(f"{stretch.name}/{block}") == split for block in blocks], bool)[block_of]
        unread = (table == symbol_tokenizers.N).sum(1) * 2 > length
        dropped += int((mine & unread).sum())
        chosen = np.flatnonzero(mine & ~unread)
        for part in np.array_split(chosen, max(1, chosen.size * length // TOKENS_AT_ONCE)):
            if part.size:
                yield PackedBlock(table[part], None, np.full(len(part), stretch.species, np.int32))
    if short:
        warnings.warn(
            f"data.length: {short} sequences of the {split} split of {source} have fewer than {length} nucleotides and "
            "are left out",
            stacklevel=2,
        )
    if dropped:
        warnings.warn(
            f"data.path: {dropped} windows of the {split} split of {source} are N by more than half and are left out",
            stacklevel=2,
        )
