"""Tokenizers that are stored with weights, so that a model reads the ids that it was trained on."""

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from diffusion.data import subword
from diffusion.data.tokenizers import Tokenizer, bytes_tokenizer, characters_tokenizer, record_digest, words_tokenizer

FILE = "trained_with.json"
MAKERS = {
    "bytes": bytes_tokenizer,
    "characters": characters_tokenizer,
    "words": words_tokenizer,
    "bpe": subword.byte_level_of,
    "gpt2": subword.byte_level_of,
    "wordpiece": subword.with_offsets_of,
    "file": subword.with_offsets_of,
}


@dataclasses.dataclass(frozen=True)
class Stored:
    """Name and fingerprint of a tokenizer, the tokenizer itself unless its source defines it, and names of classes."""

    name: str
    fingerprint: str
    tokenizer: Tokenizer | None
    labels: tuple[str, ...]


def record(tokenizer: Tokenizer, labels: Sequence[str] = ()) -> str:
    """A tokenizer as JSON: its name, its fingerprint, and the arguments of its entry in `MAKERS`; and class names."""
    arguments = tokenizer.arguments if tokenizer.name in MAKERS else None
    fields = {"name": tokenizer.name, "fingerprint": tokenizer.fingerprint, "arguments": arguments}
    fields |= {"labels": list(labels)} if labels else {}
    return json.dumps(fields | {"sha256": record_digest(fields)})


def read(folder: Path) -> str:
    """The record in a folder of weights, or in `weights` of it; empty where weights are stored without one.

    Raises: ValueError naming a record that is no text.
    """
    try:
        return next((file.read_text(encoding="utf-8") for file in copies(folder)), "")
    except UnicodeDecodeError as error:
        raise damaged(folder, error) from None


def copies(folder: Path) -> list[Path]:
    """The files of a record: one in a folder of weights, and two in that of a training, which has its own."""
    return [place / FILE for place in (folder, folder / "weights") if (place / FILE).is_file()]


def damaged(folder: Path, error: Exception) -> ValueError:
    """The error for a record that cannot be read."""
    file, *others = copies(folder) or [folder / FILE]
    reason = str(error).partition("\n")[0] or type(error).__name__
    remedy = f"delete {file} and give the command again, which reads its copy" if others else "copy the weights again"
    return ValueError(f"checkpoint: {file} is damaged ({reason}); {remedy}")


def first(folders: Iterable[Path]) -> tuple[Path, str]:
    """The first folder with a record, and the record; an empty record where none has one."""
    return next(((folder, text) for folder in folders if (text := read(folder))), (Path(), ""))


def agree(*records: str) -> bool:
    """Whether all records are of one vocabulary; a damaged one is of none."""

    def fingerprint(text: str) -> object:
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            found = json.loads(text)
            return str(found["fingerprint"]) if isinstance(found, dict) and "fingerprint" in found else None

    found = {fingerprint(each) for each in records}
    return len(found) == 1 and None not in found


def parse(text: str, place: Path) -> Stored:
    """The tokenizer of a record, with the fingerprint that it was stored with.

    Raises: ValueError naming `place`, from which the record is, for one that is damaged.
    """
    try:
        fields = json.loads(text)
        if fields.get("sha256", own := record_digest(fields)) != own:  # records of an earlier version have none
            raise ValueError("it is not what was written")
        name, fingerprint, arguments = str(fields["name"]), str(fields["fingerprint"]), fields["arguments"]
        made, labels = None if arguments is None else MAKERS[name](**arguments), tuple(fields.get("labels", ()))
    except Exception as error:  # the library of subword tokenizers raises bare Exception
        raise damaged(place, error) from None
    # The fingerprint of a subword tokenizer may depend on the version of its library.
    return Stored(name, fingerprint, made and dataclasses.replace(made, fingerprint=fingerprint), labels)
