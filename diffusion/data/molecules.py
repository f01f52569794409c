"""Molecules as SMILES strings, from QM9."""

import functools
import warnings
from pathlib import Path

import numpy as np

from diffusion.data import readers, splits, symbol_tokenizers, tables
from diffusion.data.settings import DataSettings
from diffusion.data.types import ArraySource, missing_data

FILES = ("QM9_smiles.txt", "qm9_smiles.txt", "qm9.txt")
FIELDS = ("canonical_smiles", "smiles", "SMILES")
WHERE = "https://huggingface.co/datasets/yairschiff/qm9, or prepare TFDS qm9 with file_format=array_record"


def qm9(settings: DataSettings) -> ArraySource:
    """QM9 (Ramakrishnan et al., 2014) as <bos> + SMILES tokens + <eos> + <pad> ... to `data.length`.

    Every token counts in the loss, padding included, so that the model determines the length, as in UDLM (arXiv
    2412.10193), which uses length 32 and holds out 10 % at random. Here 5 % are validation and 5 % test, by the md5 of
    the SMILES string, so that a repeated molecule is in one split alone. The vocabulary is that of the training
    molecules. Molecules that exceed the length, and held-out ones with a token that no training molecule has, are
    omitted.
    """
    return molecule_source("qm9", read_molecules(settings.path), settings)


def molecule_source(name: str, molecules: list[str], settings: DataSettings) -> ArraySource:
    """Source of the molecules, split by the md5 of their strings.

    Raises: ValueError when the training split holds something other than SMILES.
    """
    parts: dict[str, list[str]] = {split: [] for split in splits.NAMES}
    for molecule in molecules:
        parts[splits.split_of(molecule)].append(molecule)
    symbols = symbol_tokenizers.smiles_vocabulary(parts["train"])
    invalid = next((symbol for symbol in symbols if not symbol_tokenizers.is_smiles_token(symbol)), None)
    if invalid is not None:
        line = next(molecule for molecule in parts["train"] if invalid in symbol_tokenizers.pieces(molecule))
        raise ValueError(f"data.path: {settings.path!r} holds {line[:80]!r}, which is not SMILES ({invalid[:20]!r})")
    tokenizer = symbol_tokenizers.smiles(symbols)
    assert tokenizer.bos_id is not None and tokenizer.eos_id is not None and tokenizer.filler_id is not None
    encode = symbol_tokenizers.smiles_ids(symbols)
    examples, long, unknown = {}, 0, 0
    for split, texts in parts.items():
        encoded = encode(texts)
        known = [ids for ids in encoded if (ids < len(symbols)).all()]
        selected = [ids for ids in known if len(ids) + 2 <= settings.length]
        unknown += len(encoded) - len(known)
        long += len(known) - len(selected)
        tokens = np.full((len(selected), settings.length), tokenizer.filler_id, np.int16)
        tokens[:, 0] = tokenizer.bos_id
        for row, ids in zip(tokens, selected, strict=True):
            row[1 : len(ids) + 1] = ids
            row[len(ids) + 1] = tokenizer.eos_id
        examples[split] = {"tokens": tokens}
    for number, message in (
        (long, f"data.length: {long} of {len(molecules)} molecules have more than {settings.length - 2} tokens"),
        (unknown, f"data.path: {unknown} held-out molecules have tokens that no training molecule has"),
    ):
        if number:
            warnings.warn(f"{message} and are left out", stacklevel=2)
    return ArraySource(
        name,
        {split: functools.partial(iter, [block]) for split, block in examples.items()},
        settings.length,
        tokenizer.vocab_size,
        domain="molecules",
        tokenizer=tokenizer,
        shuffled=True,
    )


def read_molecules(path: str) -> list[str]:
    """SMILES strings of a file or folder: one per line, a column of a table, or TFDS's `qm9` in ArrayRecord.

    Raises: ValueError when there are none.
    """
    place = Path(path).expanduser()
    infos = readers.files_below(path, "dataset_info.json")
    if path and place.is_file():
        files = [place]
    elif listing := readers.find(path, FILES):
        files = [listing]
    else:
        files = [file for file in readers.files_below(path) if readers.kind(file) in tables.FORMATS]
    if infos:
        texts = [text for read in tables.prepared(infos[-1].parent, "qm9", "SMILES").values() for text in read()]
    elif files and readers.kind(files[0]) in tables.FORMATS:
        texts = [readers.text_of(row, FIELDS, place) for place, row in tables.rows(*files)]
    elif files:
        texts = list(readers.lines(*files))
    else:
        raise missing_data("qm9", f"{FILES[0]} or a table with a column {' or '.join(FIELDS[:2])}", path, WHERE)
    molecules = [text.strip() for text in texts if text.strip()]
    if not molecules:
        raise ValueError(f"data.path: {path!r} holds no molecule; to get them: {WHERE}")
    return molecules
