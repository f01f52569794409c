"""Self-contained HTML pages that play the states of a denoising run: symbols with masks, or images."""

import base64
import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

TEMPLATE = Path(__file__).with_suffix(".html")
MAX_SIZE = 128  # pixels; larger images are shown at a fraction of their size


@dataclass(frozen=True)
class Heading:
    """The title of a page, named facts about the run, and names of files beside the page."""

    title: str
    facts: dict[str, str]
    files: Sequence[str] = ()


@dataclass(frozen=True)
class Symbols:
    """What the values of a state stand for, one entry for each: its text, and which share of it is masked.

    `values` are brightnesses 0 .. 255 for an image of one or three colors, and 12-bit halves of a pixel for one of two;
    None for text. With `apart`, texts are separated.
    """

    names: Sequence[str]
    hidden: Sequence[float]
    values: Sequence[int] | None = None
    apart: bool = False


def token_page(
    heading: Heading,
    symbols: Symbols,
    captions: Sequence[str],
    states: Int[np.ndarray, "S n L"],
    times: Float[np.ndarray, "S n"],
    levels: Float[np.ndarray, "S n"],
    guided: Bool[np.ndarray, " T"],
    errors: Float[np.ndarray, "T n L"] | None = None,
    shape: tuple[int, int, int] | None = None,
) -> str:
    """Return the page of n samples with S states of L positions, at `times` with mask `levels`.

    Step j leads from state j to state j + 1; `errors` are the error logits of its proposal where it is `guided`. With
    `shape` (height, width, colors) the positions are those of a channel-major image.
    """
    samples = [
        {
            "caption": caption,
            "start": states[0, index].tolist(),
            "changes": changes(states[:, index]),
            "times": rounded(times[:, index], 6),
            "levels": rounded(levels[:, index], 6),
            "errors": None
            if errors is None
            else [rounded(errors[step, index], 2) if guided[step] else None for step in range(len(guided))],
        }
        for index, caption in enumerate(captions)
    ]
    data = {
        "kind": "tokens",
        "count": len(states),
        "names": list(symbols.names),
        "hidden": rounded(symbols.hidden, 4),
        "values": None if symbols.values is None else list(symbols.values),
        "apart": symbols.apart,
        "shape": shape,
        "heated": errors is not None,
        "guided": guided.tolist(),
        "samples": samples,
    }
    return page(heading, data)


def image_page(
    heading: Heading,
    captions: Sequence[str],
    clean: UInt8[np.ndarray, "S n N H W C"],
    noisy: UInt8[np.ndarray, "S n N H W C"],
    times: Float[np.ndarray, " S"],
    curves: dict[str, Sequence[float]],
    guided: Bool[np.ndarray, " T"],
    kept: Bool[np.ndarray, "n N"] | None = None,
    guides: bool = False,
    replaces: bool = False,
) -> str:
    """Return the page of n prompts with N images each: the states, and the clean estimates at them.

    The last state is the finished images. `curves` are numbers for every state, `kept` is which images are samples,
    `guides` whether guides act in the steps that are `guided`, and `replaces` whether particles are resampled.
    """
    count = clean.shape[2]
    samples = [
        {
            "caption": caption,
            "clean": [[png(one) for one in state[index]] for state in clean],
            "noisy": [[png(one) for one in state[index]] for state in noisy],
            "kept": [True] * count if kept is None else kept[index].tolist(),
        }
        for index, caption in enumerate(captions)
    ]
    data = {
        "kind": "images",
        "count": len(clean),
        "times": rounded(times, 6),
        "curves": [[name, rounded(values, 6)] for name, values in curves.items()],
        "guided": guided.tolist(),
        "guides": guides,
        "replaces": replaces,
        "samples": samples,
    }
    return page(heading, data)


def page(heading: Heading, data: dict[str, Any]) -> str:
    """Return the template with its data, in which no text can end the script element that holds them."""
    titled = {"title": heading.title, "facts": list(heading.facts.items()), "files": list(heading.files)} | data
    text = json.dumps(titled, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return TEMPLATE.read_text(encoding="utf-8").replace("__DATA__", text)


def changes(states: Int[np.ndarray, "S L"]) -> list[list[int]]:
    """Return position, value, position, value, ... of what differs from the state before, for states 1 .. S - 1."""
    found = []
    for before, after in itertools.pairwise(states):
        positions = np.flatnonzero(before != after)
        found.append(np.stack([positions, after[positions]], axis=1).reshape(-1).tolist())
    return found


def rounded(values: Sequence[float] | Float[np.ndarray, " N"], digits: int) -> list[float]:
    """Return numbers as JSON writes them, with so many significant digits."""
    return [float(f"{value:.{digits}g}") for value in np.asarray(values, np.float64)]


def png(image: UInt8[np.ndarray, "H W C"]) -> str:
    """Return an image of one or three colors as a data URI."""
    from PIL import Image

    step = -(-max(image.shape[:2]) // MAX_SIZE)
    small = image[::step, ::step]
    colors = np.repeat(small, 3, axis=2) if small.shape[2] == 1 else small
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(colors)).save(stream, "png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
