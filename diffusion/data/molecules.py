"""Molecules as SMILES strings: those of QM9, and a user's own."""

import functools
import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from diffusion.data import data_files, readers, splits, symbol_tokenizers, tables
from diffusion.data.settings import DataSettings
from diffusion.data.types import ArraySource, missing_data

FILES = ("QM9_smiles.txt", "qm9_smiles.txt", "qm9.txt")
FIELDS = ("canonical_smiles", "smiles")  # in either case
TEXTS = (".smi", ".smiles", ".ism", ".can", ".txt")
HEADER = re.compile("smiles|^#?(smi|structure)$", re.IGNORECASE)
"""First word of a header, which names its column."""
WHERE = "https://huggingface.co/datasets/yairschiff/qm9, or prepare TFDS qm9 with file_format=array_record"


def qm9(settings: DataSettings) -> ArraySource:
    """QM9 (Ramakrishnan et al., 2014) as <bos> + SMILES tokens + <eos> + <pad> ... to `data.length`.

    Every token counts in the loss, padding included, so that the model determines the length, as in UDLM (arXiv
    2412.10193), which uses length 32 and holds out 10 % at random. Here 5 % are validation and 5 % test, by the md5 of
    the SMILES string, so that a repeated molecule is in one split alone. The vocabulary is that of the training
    molecules. Molecules that exceed the length, and held-out ones with a token that no training molecule has, are
    omitted.
    """
    molecules = list(qm9_molecules(settings.path))
    if not molecules:
        raise ValueError(f"data.path: {settings.path!r} holds no molecule; to get them: {WHERE}")
    check_smiles(molecules)
    return molecule_source("qm9", by_hash(text for _, text in molecules), settings)


def own_smiles(settings: DataSettings) -> ArraySource:
    """A user's own SMILES strings, as `qm9` has them: the first word of each line of text, or a column of tables.

    The first line of a text may be a header, and other words of a line are not read. The column is `data.field`, or one
    of the usual names. Where the names of files or folders give splits, those hold. Else 5 % of the different strings
    are validation and 5 % test, at least one each, in the order of their md5.
    Raises: ValueError naming the file and line that is not SMILES.
    """
    files = data_files.own_files(settings.path, (*TEXTS, *tables.FORMATS))
    if any(data_files.kind(file) != ".txt" for _, file in files):  # a text beside others describes them
        files = [(name, file) for name, file in files if data_files.kind(file) != ".txt"]
    parts: dict[str, list[str]] = {}
    for (_, file), split in zip(files, tables.file_splits([name for name, _ in files]), strict=True):
        molecules = list(file_molecules(file, settings.field))
        check_smiles(molecules)
        parts.setdefault(split, []).extend(text for _, text in molecules)
    if not any(parts.values()):
        raise ValueError(f"data.path: {settings.path!r} holds no molecule; pass another file")
    if "" in parts:
        try:
            encoded = symbol_tokenizers.smiles_ids(())(parts[""])
            fitting = [text for text, ids in zip(parts[""], encoded, strict=True) if len(ids) + 2 <= settings.length]
            parts = by_hash(parts[""], splits.split_below(*splits.limits(fitting or parts[""])))
        except ValueError as error:
            size = f"is too small at data.length={settings.length} ({error})"
            raise ValueError(f"data.path: {settings.path!r} {size}; pass more molecules, or a greater length") from None
    else:
        parts = {"validation": parts.get("test", []), "test": parts.get("validation", [])} | parts
        if repeated := len({*parts["validation"], *parts["test"]}.intersection(parts["train"])):
            warnings.warn(f"data.path: {repeated} held-out molecules are training molecules too", stacklevel=2)
    return molecule_source("smiles", parts, settings)


def by_hash(molecules: Iterable[str], split_of: Callable[[str], str] = splits.split_of) -> dict[str, list[str]]:
    """Molecules of each split, by the md5 of their strings."""
    parts: dict[str, list[str]] = {split: [] for split in splits.NAMES}
    for molecule in molecules:
        parts[split_of(molecule)].append(molecule)
    return parts


def check_smiles(molecules: Sequence[tuple[str, str]]) -> None:
    """Raises ValueError naming the place of the first string that is not SMILES."""
    symbols = symbol_tokenizers.smiles_vocabulary(text for _, text in molecules)
    wrong = {symbol for symbol in symbols if not symbol_tokenizers.is_smiles_token(symbol)}
    for place, text in molecules if wrong else ():
        found = next((piece for piece in symbol_tokenizers.pieces(text) if piece in wrong), None)
        if found is not None:
            raise ValueError(
                f"data.path: {place} holds {text[:80]!r}, which is not SMILES ({found[:20]!r}); correct or remove it"
            )


def molecule_source(name: str, parts: dict[str, list[str]], settings: DataSettings) -> ArraySource:
    """Source of the molecules of each split, with the vocabulary of the training molecules.

    Raises: ValueError when `data.length` is too short for every training molecule.
    """
    symbols = symbol_tokenizers.smiles_vocabulary(parts["train"])
    tokenizer = symbol_tokenizers.smiles(symbols)
    assert tokenizer.bos_id is not None and tokenizer.eos_id is not None and tokenizer.filler_id is not None
    encode = symbol_tokenizers.smiles_ids(symbols)
    examples, long, unknown, longest, total = {}, 0, 0, 0, sum(map(len, parts.values()))
    for split, texts in parts.items():
        encoded = encode(texts)
        known = [ids for ids in encoded if (ids < len(symbols)).all()]
        selected = [ids for ids in known if len(ids) + 2 <= settings.length]
        unknown += len(encoded) - len(known)
        long += len(known) - len(selected)
        longest = max([longest, *map(len, known)])
        tokens = np.full((len(selected), settings.length), tokenizer.filler_id, np.int16)
        tokens[:, 0] = tokenizer.bos_id
        for row, ids in zip(tokens, selected, strict=True):
            row[1 : len(ids) + 1] = ids
            row[len(ids) + 1] = tokenizer.eos_id
        examples[split] = {"tokens": tokens}
    too_long = f"data.length: {long} of {total} molecules have more than {settings.length - 2} tokens"
    remedy = f"--config.data.length={longest + 2} holds all"
    if not len(examples["train"]["tokens"]):
        raise ValueError(f"{too_long}, and no training molecule is left; {remedy}")
    for number, message in (
        (long, f"{too_long} and are left out; {remedy}"),
        (
            unknown,
            f"data.path: {unknown} held-out molecules have tokens that no training molecule has and are left out",
        ),
    ):
        if number:
            warnings.warn(message, stacklevel=2)
    return ArraySource(
        name,
        {split: functools.partial(iter, [block]) for split, block in examples.items()},
        settings.length,
        tokenizer.vocab_size,
        domain="molecules",
        tokenizer=tokenizer,
        shuffled=True,
    )


def file_molecules(file: Path, column: str = "") -> Iterator[tuple[str, str]]:
    """Yields the place and the SMILES string of each molecule of a file: a column of a table, or lines of text.

    Raises: ValueError naming the columns of a table that lacks `column`.
    """
    if data_files.kind(file) in tables.FORMATS:
        yield from table_molecules(file, column)
        return
    rows = ((number, line.split()) for number, line in enumerate(readers.lines(file), 1))
    for index, (number, words) in enumerate((number, words) for number, words in rows if words):
        if index or not HEADER.search(words[0]):
            yield f"line {number} of {file}", words[0]


def table_molecules(file: Path, column: str) -> Iterator[tuple[str, str]]:
    """Molecules of a column of a table, or without a name of the first one with a usual name; see `file_molecules`."""
    empty = 0
    for place, row in tables.rows(file):
        names = [name for wanted in FIELDS for name in row if name.lower() == wanted]
        names = [name for name in row if name == column] if column else names
        if not names:
            found, wanted = ", ".join(map(str, row)), column or " or ".join(FIELDS)
            raise ValueError(f"data.field: {file} has no column {wanted}; pass --config.data.field=NAME, of {found}")
        text = readers.text_of(row, names, place).strip()
        empty += not text
        if text:
            yield place, text
    if empty:
        warnings.warn(f"data.path: {empty} rows of {file} have no molecule and are left out", stacklevel=2)


def qm9_molecules(path: str) -> Iterator[tuple[str, str]]:
    """Yields the place and the SMILES string of each molecule of QM9: of a text, tables, or TFDS's `qm9`."""
    place = Path(path).expanduser()
    infos = data_files.files_below(path, "dataset_info.json")
    if path and place.is_file():
        files = [place]
    elif listing := data_files.find(path, FILES):
        files = [listing]
    else:
        files = [file for file in data_files.files_below(path) if data_files.kind(file) in tables.FORMATS]
    if infos:
        for read in tables.prepared(infos[-1].parent, "qm9", "SMILES").values():
            yield from ((str(infos[-1].parent), text.strip()) for text in read() if text.strip())
    elif files:
        yield from itertools.chain.from_iterable(map(file_molecules, files))
    else:
        raise missing_data("qm9", f"{FILES[0]} or a table with a column {' or '.join(FIELDS)}", path, WHERE)
