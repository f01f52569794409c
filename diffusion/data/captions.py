"""Prompts of text-to-image models: GenEval's with their metadata, plain texts, and a few examples of our own."""

import json
from typing import Any

from diffusion.data.dataset import Dataset
from diffusion.data.geneval import read_prompts, read_texts
from diffusion.data.settings import DataSettings
from diffusion.data.tokenizers import bytes_tokenizer, digest
from diffusion.data.types import missing_data

SOURCES = ("geneval", "captions", "geneval_examples")
ORIGIN = "prompts/evaluation_metadata.jsonl of the repository djghosh13/geneval"


def _example(tag: str, prompt: str, *include: tuple, exclude: tuple | None = None) -> dict[str, Any]:
    entries = [{"class": name, "count": count} | more for name, count, more in include]
    left_out = {"exclude": [{"class": exclude[0], "count": exclude[1]}]} if exclude else {}
    return {"tag": tag, "include": entries, **left_out, "prompt": prompt}


# Two prompts of each task in GenEval's format, for runs without its file.
EXAMPLES = (
    _example("single_object", "a photo of a kite", ("kite", 1, {})),
    _example("single_object", "a photo of an oven", ("oven", 1, {})),
    _example("two_object", "a photo of a cup and a sheep", ("cup", 1, {}), ("sheep", 1, {})),
    _example("two_object", "a photo of a boat and a clock", ("boat", 1, {}), ("clock", 1, {})),
    _example("counting", "a photo of two bears", ("bear", 2, {}), exclude=("bear", 3)),
    _example("counting", "a photo of three vases", ("vase", 3, {}), exclude=("vase", 4)),
    _example("colors", "a photo of a purple bus", ("bus", 1, {"color": "purple"})),
    _example("colors", "a photo of a green chair", ("chair", 1, {"color": "green"})),
    _example(
        "position", "a photo of a horse left of a cat", ("cat", 1, {}), ("horse", 1, {"position": ["left of", 0]})
    ),
    _example("position", "a photo of a book above a bowl", ("bowl", 1, {}), ("book", 1, {"position": ["above", 0]})),
    _example(
        "color_attr",
        "a photo of a red cake and a blue chair",
        ("cake", 1, {"color": "red"}),
        ("chair", 1, {"color": "blue"}),
    ),
    _example(
        "color_attr",
        "a photo of a yellow dog and a black car",
        ("dog", 1, {"color": "yellow"}),
        ("car", 1, {"color": "black"}),
    ),
)


def prompts(settings: DataSettings) -> list[dict[str, Any]]:
    """The metadata of all prompts of a source, each with its `prompt` and, for GenEval's, what the image must show.

    Raises: ValueError for a missing file, or naming the line that is not a prompt.
    """
    if settings.source == "geneval_examples":
        return [dict(example) for example in EXAMPLES]
    if not settings.path:
        expected, origin = ("its prompts", ORIGIN) if settings.source == "geneval" else ("a text file", "one per line")
        raise missing_data(settings.source, expected, "", origin)
    return (read_prompts if settings.source == "geneval" else read_texts)(settings.path)


def load(settings: DataSettings, tokenizer: Any) -> Dataset:
    """Prompts as a data set without examples: they have no splits, and no tokenizer but that of the text encoders."""
    found = prompts(settings)
    fingerprint = digest(json.dumps(found, sort_keys=True))
    return Dataset({}, bytes_tokenizer(), 1, False, fingerprint, {}, settings.source, "test", domain="captions")
