"""Sources of translations: pairs of a split with their references, or the lines of a user's file."""

import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from experiments.run_context import Run

SHOWN = 10  # lines named in a warning


class Sources(NamedTuple):
    """Sources as texts and as tokens; a user's file has no references, and its `lines` are those with a text."""

    sources: list[str]
    source: Int[np.ndarray, "N S"]
    weights: Float[np.ndarray, "N S"]
    references: list[tuple[str, ...]] | None
    lines: list[int]  # indices of lines
    cut: int  # number of sources that are longer than data.source_length


def held_out_pairs(run: Run) -> Sources:
    """The first `sample.count` pairs of a split, with all references of each."""
    options = run.config.sample
    split = run.dataset.split(options.translation.split)
    indices = range(min(options.count, len(split)))
    rows, (sources, references) = split.rows(indices), split.texts(indices)
    limit = run.config.data.source_length - 1
    cut = sum(len(ids) > limit for ids in run.dataset.tokenizer.encode_batch(sources))
    return Sources(sources, rows["source"], rows["source_weights"], references, list(indices), cut)


def user_lines(file: str) -> list[str]:
    """Lines of a user's file, which a newline ends; raises ValueError if there is no text to read."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(
            f"sample.source: {file!r} is not a file; pass --config.sample.source=FILE, one source per line"
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"sample.source: {file!r} is not UTF-8 (byte {error.start}); convert it") from None
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if not text.strip():
        raise ValueError(f"sample.source: {file!r} has no text; write one source per line")
    return lines


def user_sources(run: Run) -> Sources:
    """Sources of a user's file; truncated and empty lines cause warnings."""
    data, tokenizer = run.config.data, run.dataset.tokenizer
    lines = user_lines(run.config.sample.source)
    numbers = [number for number, line in enumerate(lines) if line.strip()]
    texts = [lines[number].strip() for number in numbers]
    texts = [text.lower() for text in texts] if data.lower else texts
    limit, end = data.source_length - 1, tokenizer.eos_id
    assert end is not None
    source = np.full((len(numbers), data.source_length), tokenizer.pad_id, np.int32)
    long, unknown = [], []
    for row, number, ids in zip(source, numbers, tokenizer.encode_batch(texts), strict=True):
        if len(ids) > limit:
            long.append(number)
        # Words outside the vocabulary share the token before the end token.
        if tokenizer.name == "words" and (ids == end - 1).any():
            unknown.append(number)
        ids = np.append(ids[:limit], end)
        row[: len(ids)] = ids
    warn_lines(long, f"longer than {limit} tokens (data.source_length): truncated, the rest is not translated")
    warn_lines(unknown, "with words outside the vocabulary: read as <unk>")
    warn_lines(sorted(set(range(len(lines))) - set(numbers)), "empty: the translation is empty")
    weights = (source != tokenizer.pad_id).astype(np.float32)
    return Sources(texts, source, weights, None, numbers, len(long))


def warn_lines(lines: list[int], problem: str) -> None:
    """Print a warning with the numbers, from 1, of the lines with a problem."""
    if lines and jax.process_index() == 0:
        named_lines = ", ".join(str(number + 1) for number in lines[:SHOWN]) + (", ..." if len(lines) > SHOWN else "")
        noun = "line is" if len(lines) == 1 else "lines are"
        print(f"sample.source: {len(lines)} {noun} {problem} (number {named_lines})", file=sys.stderr)
