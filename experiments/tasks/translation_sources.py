"""What is translated: pairs of a split, with their references, or the lines of a user's file."""

import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from diffusion.data.pairs import PairSplit
from experiments.run_context import Run

SHOWN = 10  # lines named in a warning


class Task(NamedTuple):
    """Sources as texts and as tokens; of a user's file there are no references, and `lines` are those with a text."""

    sources: list[str]
    source: Int[np.ndarray, "N S"]
    weights: Float[np.ndarray, "N S"]
    lengths: Int[np.ndarray, " N"]  # of the first reference, its end included
    references: list[tuple[str, ...]] | None
    lines: list[int]  # numbers of lines, from 0
    cut: int  # sources that are longer than data.source_length


def held_out(run: Run) -> Task:
    """The first `sample.count` pairs of a split, with all references of each."""
    options = run.config.sample
    split = run.dataset.split(options.translation.split)
    assert isinstance(split, PairSplit)
    indices = range(min(options.count, len(split)))
    if not indices:
        raise ValueError(f"data.source: the {split.name} split of {run.dataset.source} is empty")
    rows, (sources, references) = split.rows(indices), split.texts(indices)
    lengths = rows["weights"].sum(axis=1).astype(np.int32)
    limit = run.config.data.source_length - 1
    cut = sum(len(ids) > limit for ids in run.dataset.tokenizer.encode_batch(sources))
    return Task(sources, rows["source"], rows["source_weights"], lengths, references, list(indices), cut)


def user_lines(file: str) -> list[str]:
    """The lines of a user's file; raises ValueError in one line when there is nothing to read."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"sample.source: {file!r} is no file; pass --config.sample.source=FILE, one source a line")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"sample.source: {file!r} is not UTF-8 (byte {error.start}); convert it") from None
    if not any(line.strip() for line in lines):
        raise ValueError(f"sample.source: {file!r} has no text; write one source a line")
    return lines


def own(run: Run) -> Task:
    """A user's file; lines that are too long are cut, and empty ones stay empty. Both are said."""
    data, tokenizer = run.config.data, run.dataset.tokenizer
    lines = user_lines(run.config.sample.source)
    kept = [number for number, line in enumerate(lines) if line.strip()]
    texts = [lines[number].strip() for number in kept]
    texts = [text.lower() for text in texts] if data.lower else texts
    limit, end = data.source_length - 1, tokenizer.eos_id
    assert end is not None
    source = np.full((len(kept), data.source_length), tokenizer.pad_id, np.int32)
    long, strange = [], []
    for row, number, ids in zip(source, kept, tokenizer.encode_batch(texts), strict=True):
        if len(ids) > limit:
            long.append(number)
        # Words that training never saw share one token.
        if tokenizer.name == "words" and (ids == end - 1).any():
            strange.append(number)
        ids = np.append(ids[:limit], end)
        row[: len(ids)] = ids
    say(long, f"longer than {limit} tokens (data.source_length): cut there, the rest is not translated")
    say(strange, "with words that training never saw: read as <unk>")
    say(sorted(set(range(len(lines))) - set(kept)), "empty: left empty")
    weights = (source != tokenizer.pad_id).astype(np.float32)
    return Task(texts, source, weights, np.ones(len(kept), np.int32), None, kept, len(long))


def say(lines: list[int], what: str) -> None:
    """Name lines, from 1, of which something is to be told."""
    if lines and jax.process_index() == 0:
        named_lines = ", ".join(str(number + 1) for number in lines[:SHOWN]) + (", ..." if len(lines) > SHOWN else "")
        noun = "line is" if len(lines) == 1 else "lines are"
        print(f"sample.source: {len(lines)} {noun} {what} (number {named_lines})", file=sys.stderr)
