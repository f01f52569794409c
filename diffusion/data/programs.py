"""Short programs with their intents: CoNaLa and HumanEval."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion.data import data_files, readers, splits
from diffusion.data.settings import DataSettings
from diffusion.data.tokenizers import digest
from diffusion.data.types import Source, missing_data

CONALA_FILES = {"train": "conala-train.json", "test": "conala-test.json"}
CONALA_WHERE = "https://conala-corpus.github.io, CoNaLa v1.1"
HUMANEVAL_FILE = "HumanEval.jsonl"
HUMANEVAL_WHERE = "https://github.com/openai/human-eval, data/HumanEval.jsonl.gz"


def conala(settings: DataSettings) -> Source:
    """CoNaLa v1.1 (Yin et al., 2018), official train and test splits: the intent as a comment, then the snippet.

    The intent is the rewritten one where available. 5 % of the question ids of train, by md5, are validation. Files
    conala-train.json and conala-test.json (plain or compressed) may be at any depth under `data.path`.
    """
    found = {split: _find(settings.path, name) for split, name in CONALA_FILES.items()}
    files = {split: file for split, file in found.items() if file is not None}
    if len(files) < len(CONALA_FILES):
        expected = f"{' and '.join(CONALA_FILES.values())} (plain, .xz or .gz)"
        raise missing_data("conala", expected, settings.path, CONALA_WHERE)
    records = {split: _conala_documents(file) for split, file in files.items()}
    shared = {question for question, _ in records["train"]} & {question for question, _ in records["test"]}
    if shared:
        raise ValueError(
            f"data.path: question {min(shared)} is in {files['train']} and in {files['test']}, as when versions are "
            f"mixed; download both again: {CONALA_WHERE}"
        )
    parts: dict[str, list[str]] = {split: [] for split in splits.NAMES}
    for question, text in records["train"]:
        parts["validation" if splits.split_of(question) == "validation" else "train"].append(text)
    parts["test"] = [text for _, text in records["test"]]
    return _source("conala", parts)


def humaneval(settings: DataSettings) -> Source:
    """HumanEval's prompts with their canonical solutions (Chen et al., arXiv 2107.03374), all in the test split.

    It is for evaluation alone and has neither a train nor a validation split.
    """
    file = _find(settings.path, HUMANEVAL_FILE)
    if file is None:
        raise missing_data("humaneval", f"{HUMANEVAL_FILE} (plain, .gz or .xz)", settings.path, HUMANEVAL_WHERE)
    rows = readers.json_rows(file)
    texts = [_text(row, ("prompt",), place) + _text(row, ("canonical_solution",), place) for place, row in rows]
    if not texts:
        raise ValueError(f"data.path: {file} holds no problem; download it again: {HUMANEVAL_WHERE}")
    return _source("humaneval", {"test": texts})


def _find(path: str, name: str) -> Path | None:
    """`path` itself or the shallowest file under it with this name, plain or compressed; None when there is none."""
    place = Path(path).expanduser()
    names = [name + suffix for suffix in ("", *data_files.COMPRESSED)]
    candidates = [place] if path and place.is_file() else data_files.files_below(path, f"{name}*")
    files = [file for file in candidates if file.name in names]
    return min(files, key=lambda file: (len(file.parts), names.index(file.name), file), default=None)


def _conala_documents(file: Path) -> list[tuple[str, str]]:
    """Question id and text of each record."""
    text = readers.read_text(file)
    try:
        records = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"data.path: {file} is not JSON ({error}); download it again: {CONALA_WHERE}") from None
    if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"data.path: {file} is not a JSON list of records")
    documents = []
    for number, record in enumerate(records, 1):
        question, place = record.get("question_id"), f"record {number} of {file}"
        if isinstance(question, bool) or not isinstance(question, int | str):
            raise ValueError(f"data.path: {place} has no question_id")
        # A comment ends with its line.
        intent = " ".join(_text(record, ("rewritten_intent", "intent"), place).split())
        documents.append((str(question), f"# {intent}\n{_text(record, ('snippet',), place)}\n"))
    return documents


def _text(record: Mapping[str, Any], fields: Sequence[str], place: str) -> str:
    """First of the fields whose text is not blank."""
    for name in fields:
        value = record.get(name)
        if isinstance(value, str) and value.strip():
            return value
    raise ValueError(f"data.path: {place} has no {' or '.join(fields)}")


def _source(name: str, parts: Mapping[str, list[str]]) -> Source:
    """Source of the texts of each split, with a hash of their content; omits empty splits."""
    content = [part for split, texts in parts.items() for part in (split, digest(*texts))]
    documents = {split: functools.partial(iter, texts) for split, texts in parts.items() if texts}
    return Source(name, documents, digest(*content), paper_split="test")
