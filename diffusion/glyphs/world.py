"""Pictures of colored glyphs, 16 x 16 pixels, that fulfill a prompt, or miss it by one thing: a world with exact truth.

The prompts are those of `shapes_prompts`, the rules GenEval's, and what a scene shows is known without detecting it.
"""

import functools
import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, UInt8

from diffusion.glyphs.prompts import COLOR_NAMES, GLYPH_NAMES, PROMPT_LENGTH, encode, parse, prompts
from diffusion.metrics import geneval
from diffusion.metrics.geneval import OPPOSITES, TASKS, Detection, Metadata

SIDE = 16
EXTENT = 5
CELL = 8
MOST = (SIDE // CELL) ** 2  # things that a scene has room for
JITTER = 0.03
BACKGROUND = (0.84, 0.90)
WIDEST_ANGLE = np.deg2rad(41)

ROWS = {
    "square": ("#####", "#####", "#####", "#####", "#####"),
    "plus": ("..#..", "..#..", "#####", "..#..", "..#.."),
    "ring": ("#####", "#...#", "#...#", "#...#", "#####"),
    "diamond": ("..#..", ".###.", "#####", ".###.", "..#.."),
}
GLYPHS = {name: np.array([[letter == "#" for letter in row] for row in ROWS[name]]) for name in GLYPH_NAMES}
LEVELS = ((220, 40, 40), (40, 170, 60), (50, 80, 220), (240, 210, 40), (160, 60, 190), (30, 30, 30))
PALETTE = {name: np.array(levels) / 255 for name, levels in zip(COLOR_NAMES, LEVELS, strict=True)}

# How a near miss misses, by task; what is named twice is twice as frequent.
MISSES = {
    "single_object": ("missing", "glyph", "glyph", "glyph"),
    "two_object": ("missing", "glyph"),
    "counting": ("missing", "extra", "glyph"),
    "colors": ("missing", "glyph", "glyph", "color", "color"),
    "position": ("missing", "glyph", "relation", "relation"),
    "color_attr": ("missing", "glyph", "color", "swap"),
}


class Thing(NamedTuple):
    """A glyph in a color, with the row and column of its upper left corner, and how far its color is off."""

    glyph: str
    color: str
    row: int
    column: int
    jitter: tuple[float, float, float] = (0.0, 0.0, 0.0)


class Scene(NamedTuple):
    """Things on gray, drawn in their order."""

    things: tuple[Thing, ...]
    background: float = 0.87


def render(scene: Scene) -> Float[np.ndarray, "16 16 3"]:
    """Row, column, red-green-blue, values in [0, 1].

    Raises:
      ValueError: for an unknown glyph or color, or a thing that does not lie inside.
    """
    image = np.full((SIDE, SIDE, 3), scene.background)
    for thing in scene.things:
        inside = 0 <= min(thing.row, thing.column) and max(thing.row, thing.column) <= SIDE - EXTENT
        if thing.glyph not in GLYPHS or thing.color not in PALETTE or not inside:
            raise ValueError(
                f"scene.things: {thing} cannot be drawn; use {', '.join(GLYPHS)} in {', '.join(PALETTE)}, rows and "
                f"columns 0 to {SIDE - EXTENT}"
            )
        box = image[thing.row : thing.row + EXTENT, thing.column : thing.column + EXTENT]
        box[GLYPHS[thing.glyph]] = PALETTE[thing.color] + thing.jitter
    return np.clip(image, 0, 1)


def objects(scene: Scene) -> list[Detection]:
    """What is there, as a perfect detector reports it that reads line by line: by the first pixel of each thing."""
    ordered = sorted(scene.things, key=lambda each: (each.row, each.column + ROWS[each.glyph][0].index("#")))
    return [
        Detection(each.glyph, 1.0, (each.column, each.row, each.column + EXTENT, each.row + EXTENT), each.color)
        for each in ordered
    ]


def separated(places: Int[np.ndarray, "... N 2"]) -> Bool[np.ndarray | np.bool_, "..."]:
    """Whether at least one free row or column lies between any two boxes."""
    distances = np.abs(places[..., :, None, :] - places[..., None, :, :]).max(axis=-1)
    return np.all((distances > EXTENT) | np.eye(places.shape[-2], dtype=bool), axis=(-1, -2))


@functools.cache
def pairs(relation: str | None) -> Int[np.ndarray, "P 2 2"]:
    """All separated places (row, column) of two things; the second lies within 41 degrees of where it is asked for."""
    line = np.arange(SIDE - EXTENT + 1)
    places = np.stack(np.meshgrid(line, line, line, line, indexing="ij"), axis=-1).reshape(-1, 2, 2)
    places = places[separated(places)]
    if relation is None:
        return places
    direction = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}[relation]
    offset = places[:, 1] - places[:, 0]
    cosine = offset @ np.array(direction) / np.linalg.norm(offset, axis=1)
    return places[cosine >= np.cos(WIDEST_ANGLE)]


def placed(rng: np.random.Generator, count: int, relation: str | None = None) -> Int[np.ndarray, "N 2"]:
    """Random separated places; from three on, each in an 8 x 8 cell of its own.

    Raises:
      ValueError: for more things than cells.
    """
    if count > MOST:
        raise ValueError(f"scene.things: {count} have no room; draw at most {MOST}")
    if count < 2:
        return rng.integers(0, SIDE - EXTENT + 1, (count, 2))
    if count == 2:
        table = pairs(relation)
        return table[rng.integers(len(table))]
    while True:
        cells = np.stack(np.divmod(rng.permutation(MOST)[:count], SIDE // CELL), axis=1)
        places = cells * CELL + rng.integers(0, CELL - EXTENT + 1, (count, 2))
        if separated(places):
            return places


def asked(rng: np.random.Generator, metadata: Metadata) -> tuple[list[tuple[str, str]], str | None]:
    """Glyphs and colors that fulfill a prompt, any color where it names none, and the relation it asks for."""
    things = [
        (each["class"], each.get("color") or other(rng, COLOR_NAMES))
        for each in metadata["include"]
        for _ in range(each["count"])
    ]
    relation = next((each["position"][0] for each in metadata["include"] if "position" in each), None)
    return things, relation


def other(rng: np.random.Generator, names: tuple[str, ...], name: str | None = None) -> str:
    """Any of the names but this one."""
    left = [each for each in names if each != name]
    return left[rng.integers(len(left))]


def arranged(rng: np.random.Generator, things: list[tuple[str, str]], relation: str | None) -> Scene:
    """These things at random places, with random gray and random shades."""
    places = placed(rng, len(things), relation).tolist()
    jitters = rng.uniform(-JITTER, JITTER, (len(things), 3)).tolist()
    drawn = zip(things, places, jitters, strict=True)
    scene = tuple(Thing(*thing, row, column, tuple(off)) for thing, (row, column), off in drawn)
    return Scene(scene, rng.uniform(*BACKGROUND))


def correct_scene(rng: np.random.Generator, metadata: Metadata) -> Scene:
    """A scene with what a prompt of the grammar asks for and nothing else."""
    return arranged(rng, *asked(rng, metadata))


def near_miss(rng: np.random.Generator, metadata: Metadata) -> Scene:
    """A scene with one thing wrong: one is missing or too much, has another glyph or color, or lies elsewhere.

    Drawn anew until GenEval's rules call the true objects wrong, since a change may leave a prompt fulfilled: on a
    diagonal two relations hold, and four things leave no room for a fifth.
    """
    while True:
        things, relation = asked(rng, metadata)
        index = int(rng.integers(len(things)))
        glyph, color = things[index]
        match other(rng, MISSES[metadata["tag"]]):
            case "missing":
                del things[index]
            case "extra":
                things = [*things, (glyph, other(rng, COLOR_NAMES))][:MOST]
            case "glyph":
                things[index] = (other(rng, GLYPH_NAMES, glyph), color)
            case "color":
                things[index] = (glyph, other(rng, COLOR_NAMES, color))
            case "swap":
                (first, paint), (second, varnish) = things
                things = [(first, varnish), (second, paint)]
            case "relation":
                relation = other(rng, tuple(OPPOSITES), relation)
        scene = arranged(rng, things, relation)
        if not geneval.correct(metadata, objects(scene)):
            return scene


class Pool(NamedTuple):
    """Pictures in random order, values in [0, 1], with the verdict on each."""

    images: Float32[np.ndarray, "M 16 16 3"]
    correct: Bool[np.ndarray, " M"]


def pool(seed: int, metadata: Metadata, size: int = 192, correct: float = 0.35) -> Pool:
    """Pictures for a prompt of which the share `correct`, rounded to a whole number, fulfills it; the rest nearly does.

    Raises:
      ValueError: for a share outside [0, 1] or no picture.
    """
    if size < 1 or not 0 <= correct <= 1:
        raise ValueError(f"pool: size {size} with a correct share of {correct}; use at least 1 and a share in [0, 1]")
    rng = np.random.default_rng((seed, zlib.crc32(metadata["prompt"].encode())))
    right = rng.permutation(size) < round(size * correct)
    scenes = [correct_scene(rng, metadata) if good else near_miss(rng, metadata) for good in right]
    return Pool(np.stack([render(scene) for scene in scenes]).astype(np.float32), right)


class Examples(NamedTuple):
    """Pictures 0 .. 255, the ids of their prompts' words, and the prompts."""

    images: UInt8[np.ndarray, "N 16 16 3"]
    tokens: Int32[np.ndarray, "N 8"]
    prompts: list[str]


class RewardExamples(NamedTuple):
    """The same with GenEval's graded reward of the true objects, 1 exactly where the prompt is fulfilled."""

    images: UInt8[np.ndarray, "N 16 16 3"]
    tokens: Int32[np.ndarray, "N 8"]
    prompts: list[str]
    rewards: Float32[np.ndarray, " N"]


@functools.cache
def encoded(split: str) -> tuple[tuple[tuple[Metadata, Int[np.ndarray, "8"]], ...], ...]:
    """By task, all prompts of a split as metadata and word ids."""
    return tuple(tuple((parse(text), encode(text)) for text in prompts(task, split)) for task in TASKS)


def drawn_prompt(rng: np.random.Generator, split: str) -> tuple[Metadata, Int[np.ndarray, "8"]]:
    """Any task, then any of its prompts."""
    task = encoded(split)[rng.integers(len(TASKS))]
    return task[rng.integers(len(task))]


def examples(seed: int, count: int, split: str = "train") -> Examples:
    """Correct scenes with their prompts, the tasks equally frequent: what a text-to-image model is trained on.

    The first examples do not depend on `count`. Raises: ValueError for an unknown split.
    """
    rng = np.random.default_rng(seed)
    images, tokens, texts = _empty(count)
    for index in range(count):
        metadata, tokens[index] = drawn_prompt(rng, split)
        images[index] = _bytes(correct_scene(rng, metadata))
        texts.append(metadata["prompt"])
    return Examples(images, tokens, texts)


def reward_examples(seed: int, count: int, split: str = "train") -> RewardExamples:
    """What a reward model is trained on: 45 % correct scenes, 45 % near misses, 10 % scenes of another prompt.

    The first examples do not depend on `count`. Raises: ValueError for an unknown split.
    """
    rng = np.random.default_rng((seed, 1))
    images, tokens, texts = _empty(count)
    rewards = np.zeros(count, np.float32)
    for index in range(count):
        metadata, tokens[index] = drawn_prompt(rng, split)
        kind = rng.random()
        if kind < 0.45:
            scene = correct_scene(rng, metadata)
        elif kind < 0.9:
            scene = near_miss(rng, metadata)
        else:
            unrelated = metadata
            while unrelated["prompt"] == metadata["prompt"]:
                unrelated, _ = drawn_prompt(rng, split)
            scene = correct_scene(rng, unrelated)
        images[index] = _bytes(scene)
        texts.append(metadata["prompt"])
        rewards[index] = geneval.reward(metadata, objects(scene))
    return RewardExamples(images, tokens, texts, rewards)


def _bytes(scene: Scene) -> UInt8[np.ndarray, "16 16 3"]:
    return np.round(render(scene) * 255).astype(np.uint8)


def _empty(count: int) -> tuple[UInt8[np.ndarray, "N 16 16 3"], Int32[np.ndarray, "N 8"], list[str]]:
    return np.zeros((count, SIDE, SIDE, 3), np.uint8), np.zeros((count, PROMPT_LENGTH), np.int32), []
