"""Sequences of a user's own FASTA files: in windows or one by one, with or without labels."""

import dataclasses
import hashlib
import json
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from diffusion.data import data_files, splits, symbol_tokenizers, tables
from diffusion.data.genomes import sequence_source
from diffusion.data.sequences import FASTA, LabeledSequence, Record, examples_of, fasta_records
from diffusion.data.settings import DataSettings
from diffusion.data.tokenizers import digest
from diffusion.data.types import ArraySource

FORMAT = 1  # increment when a survey changes


@dataclasses.dataclass(frozen=True)
class Survey:
    """What one pass over all records finds, which later runs read from the cache."""

    letters: dict[str, int]  # counts by letter
    labels: list[str]
    limits: list[int]  # of `splits.split_below`; empty where the files name their splits

    def upper(self, letters: str) -> int:
        """Number of some upper-case letters in either case."""
        return sum(count for letter, count in self.letters.items() if letter.upper() in letters)


def own_fasta(settings: DataSettings) -> ArraySource:
    """Nucleotides of any FASTA file or folder, in windows of `data.length` or, with `data.bos_eos`, record by record.

    Letters may be DNA or RNA in either case; ambiguity codes and gaps become N, and their number is said. A record is
    an example <bos>, nucleotides, <eos>, <pad> ... with `data.bos_eos`; see `sequences.examples_of`.

    `data.labels` names what labels a sequence: its file, the first sub-folder, or `data.field` of its header; see
    `label_of`. Where the names of files or folders give splits, those hold. Else 5 % of the blocks of 8,192 nucleotides
    are validation and 5 % test, at least one each, by the md5 of the sequence, so that a repeated record is in one
    split alone. Packed once.
    Raises: ValueError naming the file and line that is no record of nucleotides, or lacks its label.
    """
    files = data_files.own_files(settings.path, FASTA)
    file_splits = tables.file_splits([name for name, _ in files])
    if settings.labels == "file" and file_splits[0]:
        raise ValueError("data.labels: names of files are those of splits; pass --config.data.labels=folder, or header")
    fields = (settings.length, settings.bos_eos, settings.labels, settings.field)
    content = digest(str(FORMAT), data_files.content_hash(files), *map(str, fields))
    survey = surveyed(settings, files, file_splits, content)
    say_letters(survey)
    label_ids = {label: index for index, label in enumerate(survey.labels)}
    rna = survey.upper("U") > 0 and survey.upper("T") == 0

    def read() -> Iterator[LabeledSequence]:
        return (sequence for sequence, _, _ in labeled(settings, files, file_splits, label_ids))

    return sequence_source(
        "fasta",
        read,
        settings,
        tuple(survey.labels),
        set(file_splits),
        content,
        symbol_tokenizers.nucleotides(begin=settings.bos_eos, rna=rna),
        splits.split_below(*survey.limits) if survey.limits else splits.split_of,
    )


def labeled(
    settings: DataSettings,
    files: list[tuple[str, Path]],
    file_splits: list[str],
    label_ids: dict[str, int] | None = None,
) -> Iterator[tuple[LabeledSequence, str | None, Record]]:
    """Yields each sequence, named by its content, with its label and its record."""
    for (name, file), split in zip(files, file_splits, strict=True):
        for record in fasta_records(file):
            label, tokens = label_of(record, name, settings), record.tokens()
            species = None if label is None or label_ids is None else label_ids[label]
            key = hashlib.md5(tokens.tobytes()).hexdigest()
            yield LabeledSequence(tokens, species, key, split), label, record


def label_of(record: Record, name: str, settings: DataSettings) -> str | None:
    """Label of a record: None, the name of its file without suffixes, its first sub-folder, or a field of its header.

    `data.field` is the name of a field, in the header as name=value or [name=value], or the number of a part of the
    header, from 1, where spaces and bars separate parts.
    Raises: ValueError naming a file or line without a label.
    """
    if settings.labels == "none":
        return None
    if settings.labels == "file":
        return Path(name.removesuffix(record.file.suffix) if record.file.suffix in data_files.COMPRESSED else name).stem
    if settings.labels == "folder":
        if "/" not in name:
            raise ValueError(f"data.labels: {name} is in no sub-folder of {settings.path!r}; move it, or pass file")
        return name.split("/")[0]
    place = f"line {record.line} of {record.file}"
    if settings.field.isdecimal():
        parts = re.split(r"[\s|]+", record.header)
        if 1 <= int(settings.field) <= len(parts) and parts[int(settings.field) - 1]:
            return parts[int(settings.field) - 1]
        raise ValueError(f"data.field: {place} has no part {settings.field} ({record.header[:60]!r})")
    field = re.escape(settings.field)
    found = re.search(rf"\[{field}=([^\]]+)\]|(?:^|[\s|;]){field}=([^\s|;]+)", record.header)
    if found is None:
        raise ValueError(f"data.field: {place} has no field {settings.field!r} ({record.header[:60]!r}); pass another")
    return found[1] or found[2]


def surveyed(settings: DataSettings, files: list[tuple[str, Path]], file_splits: list[str], content: str) -> Survey:
    """The survey of files, from the cache where their content was surveyed before."""
    stored = settings.cache / "surveys" / f"fasta-{content[:16]}.json"
    try:
        return Survey(**json.loads(stored.read_text()))
    except (OSError, ValueError, TypeError):  # there is none, or it is damaged
        pass
    survey = survey_of(settings, files, file_splits)
    try:
        stored.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=stored.parent, suffix=".partial", delete=False) as stream:
            json.dump(dataclasses.asdict(survey), stream)
        Path(stream.name).replace(stored)
    except OSError as error:
        raise ValueError(f"data.cache_dir: cannot write {str(stored)!r} ({error.strerror}); pass another") from None
    return survey


def survey_of(settings: DataSettings, files: list[tuple[str, Path]], file_splits: list[str]) -> Survey:
    """One pass over all records: their letters, their labels, and the limits of splits.

    Raises: ValueError when no record, or too few parts, give examples.
    """
    letters, labels, keys, longest = np.zeros(256, np.int64), set(), set(), 0
    tokenizer = symbol_tokenizers.nucleotides(begin=True) if settings.bos_eos else None
    for sequence, label, record in labeled(settings, files, file_splits):
        text = "".join(record.parts).encode()
        letters += np.bincount(np.frombuffer(text, np.uint8), minlength=256)
        labels |= set() if label is None else {label}
        longest = max(longest, len(text))
        _, blocks, known = examples_of(sequence.tokens, settings.length, tokenizer)
        keys |= {f"{sequence.name}/{block}" for block in set(blocks[known].tolist())}
    if not keys:
        remedy = "pass a smaller --config.data.length, or --config.data.bos_eos=True for records one by one"
        remedy = f"pass --config.data.length={longest + 2}, or False for windows" if settings.bos_eos else remedy
        raise ValueError(
            f"data.length: no record of {settings.path!r} gives an example of {settings.length} tokens (the longest "
            f"has {longest} nucleotides); {remedy}"
        )
    counts = {chr(byte): int(count) for byte, count in enumerate(letters) if count}
    try:
        limits = [] if file_splits[0] else list(splits.limits(keys))
    except ValueError as error:
        raise ValueError(
            f"data.path: {settings.path!r} is too small at data.length={settings.length} ({error}); pass more records, "
            "or name files by their splits"
        ) from None
    return Survey(counts, sorted(labels), limits)


def say_letters(survey: Survey) -> None:
    """Warns of the letters that are not read as they are written."""
    counts = {
        "are lower case and read as upper case": sum(n for letter, n in survey.letters.items() if letter.islower()),
        "are ambiguity codes and read as N": survey.upper(symbol_tokenizers.AMBIGUOUS),
        "are gaps and read as N": survey.upper(symbol_tokenizers.GAPS),
        "are U and read as T, since there are both": survey.upper("U") if survey.upper("T") else 0,
    }
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    if said:
        warnings.warn(f"data.path: of {sum(survey.letters.values())} letters {said}", stacklevel=2)
