"""Prompts of glyph images: GenEval's six tasks over four glyphs and six colors, in a vocabulary of 24 words."""

import functools
import hashlib
import itertools
from typing import Any

import numpy as np
from jaxtyping import Int

from diffusion.metrics.geneval import OPPOSITES, TASKS

GLYPH_NAMES = ("square", "plus", "ring", "diamond")
COLOR_NAMES = ("red", "green", "blue", "yellow", "purple", "black")
PLURALS = {"squares": "square", "pluses": "plus", "rings": "ring", "diamonds": "diamond"}
NUMBERS = {"two": 2, "three": 3, "four": 4}
SPLITS = ("train", "validation", "test")

# Ids are indices into this tuple; 0 pads to PROMPT_LENGTH.
WORDS = ("<pad>", "a", "and", "above", "below", "left", "right", "of")
WORDS += (*NUMBERS, *GLYPH_NAMES, *PLURALS, *COLOR_NAMES)
PROMPT_LENGTH = 8

# Meanings in each of validation and test alone, out of 6, 24, 24 and 180.
HELD_OUT = {"two_object": 1, "colors": 6, "position": 4, "color_attr": 30}
# Hashed with every meaning: the least number for which each split of colors, position and color_attr contains every
# word of its task, and training contains every glyph on either side of every relation.
SALT = 8083


def parse(prompt: str) -> dict[str, Any]:
    """GenEval's metadata of a prompt, which is independent of case and spaces.

    Raises:
      ValueError: for a prompt outside the grammar, with the grammar.
    """
    words = prompt.lower().split()
    include: list[dict[str, Any]] = []
    exclude: list[dict[str, Any]] = []
    match words:
        case ["a", glyph] if glyph in GLYPH_NAMES:
            tag, include = "single_object", [{"class": glyph, "count": 1}]
        case [number, plural] if number in NUMBERS and plural in PLURALS:
            glyph, count = PLURALS[plural], NUMBERS[number]
            tag, include = "counting", [{"class": glyph, "count": count}]
            exclude = [{"class": glyph, "count": count + 1}]
        case ["a", color, glyph] if color in COLOR_NAMES and glyph in GLYPH_NAMES:
            tag, include = "colors", [{"class": glyph, "count": 1, "color": color}]
        case ["a", first, "and", "a", second] if distinct(first, second, GLYPH_NAMES):
            tag, include = "two_object", [{"class": glyph, "count": 1} for glyph in (first, second)]
        case ["a", first, *between, "a", second] if (
            distinct(first, second, GLYPH_NAMES) and (relation := " ".join(between)) in OPPOSITES
        ):
            # The reference comes first, as in GenEval's own files.
            located = {"class": first, "count": 1, "position": [relation, 0]}
            tag, include = "position", [{"class": second, "count": 1}, located]
        case ["a", paint, first, "and", "a", other, second] if distinct(first, second, GLYPH_NAMES) and distinct(
            paint, other, COLOR_NAMES
        ):
            pairs = ((first, paint), (second, other))
            tag, include = "color_attr", [{"class": glyph, "count": 1, "color": color} for glyph, color in pairs]
        case _:
            raise ValueError(
                f"sample.prompt: {prompt!r} is outside the grammar; use {', '.join(GLYPH_NAMES)} (two to four of one "
                f"kind, or one or two different ones) in {', '.join(COLOR_NAMES)} (two different ones), as in 'a "
                "ring', 'three diamonds', 'a purple ring', 'a ring and a plus', 'a square above a ring' (below, left "
                "of, right of) or 'a red plus and a green diamond'"
            )
    return {"tag": tag, "include": include} | ({"exclude": exclude} if exclude else {}) | {"prompt": " ".join(words)}


def distinct(first: str, second: str, names: tuple[str, ...]) -> bool:
    """Whether `first` and `second` are different and both in `names`."""
    return first != second and first in names and second in names


def meanings(task: str) -> list[tuple[str, ...]]:
    """All meanings of a task in a fixed order, each as the one or two prompts that express it.

    "a ring and a plus" is "a plus and a ring", and "a ring above a plus" is "a plus below a ring".

    Raises:
      ValueError: for an unknown task.
    """
    match task:
        case "single_object":
            return [(f"a {glyph}",) for glyph in GLYPH_NAMES]
        case "counting":
            return [(f"{number} {plural}",) for plural in PLURALS for number in NUMBERS]
        case "colors":
            return [(f"a {color} {glyph}",) for glyph in GLYPH_NAMES for color in COLOR_NAMES]
        case "two_object":
            pairs = itertools.combinations(GLYPH_NAMES, 2)
            return [(f"a {first} and a {second}", f"a {second} and a {first}") for first, second in pairs]
        case "position":
            return [
                (f"a {first} {relation} a {second}", f"a {second} {OPPOSITES[relation]} a {first}")
                for first, second in itertools.permutations(GLYPH_NAMES, 2)
                for relation in ("left of", "above")
            ]
        case "color_attr":
            things = [
                (f"a {paint} {first}", f"a {other} {second}")
                for first, second in itertools.combinations(GLYPH_NAMES, 2)
                for paint, other in itertools.permutations(COLOR_NAMES, 2)
            ]
            return [(f"{first} and {second}", f"{second} and {first}") for first, second in things]
    raise ValueError(f"task: unknown {task!r}; use one of {', '.join(TASKS)}")


@functools.cache
def prompts(task: str, split: str | None = None) -> tuple[str, ...]:
    """All prompts of a task, or those of one split, in a fixed order.

    Meanings are split, not prompts, in the order of their hash, so that no meaning of validation or test occurs in
    another split in other words. single_object and counting have too few meanings (4 and 12) and are whole in all three
    splits.

    Raises:
      ValueError: for an unknown task or split.
    """
    if split is not None and split not in SPLITS:
        raise ValueError(f"split: unknown {split!r}; use one of {', '.join(SPLITS)}")
    selected = meanings(task)
    size = HELD_OUT.get(task, 0)
    if split is not None and size:
        hashed = sorted(selected, key=lambda synonyms: hashlib.sha256(f"{SALT} {synonyms[0]}".encode()).hexdigest())
        parts = {"test": hashed[:size], "validation": hashed[size : 2 * size], "train": hashed[2 * size :]}
        selected = [synonyms for synonyms in selected if synonyms in parts[split]]
    return tuple(prompt for synonyms in selected for prompt in synonyms)


def encode(prompt: str) -> Int[np.ndarray, "8"]:
    """Ids of the words of a prompt, padded with 0.

    Raises:
      ValueError: for a prompt outside the grammar.
    """
    ids = [WORDS.index(word) for word in parse(prompt)["prompt"].split()]
    return np.array(ids + [0] * (PROMPT_LENGTH - len(ids)), np.int32)
