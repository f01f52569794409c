"""Images of colored glyphs, 16 x 16 pixels, that fulfill a prompt or miss it by one change.

The prompts are those of `glyphs.prompts`, the rules are GenEval's, and the objects of a scene are known exactly.
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
MAX_THINGS = (SIDE // CELL) ** 2
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

# Changes that turn a correct scene into a near miss, by task; repetition sets the frequency.
MISSES = {
    "single_object": ("missing", "glyph", "glyph", "glyph"),
    "two_object": ("missing", "glyph"),
    "counting": ("missing", "extra", "glyph"),
    "colors": ("missing", "glyph", "glyph", "color", "color"),
    "position": ("missing", "glyph", "relation", "relation"),
    "color_attr": ("missing", "glyph", "color", "swap"),
}


class Thing(NamedTuple):
    """A glyph in a color, with the row and column of its upper left corner and an offset of its color."""

    glyph: str
    color: str
    row: int
    column: int
    jitter: tuple[float, float, float] = (0.0, 0.0, 0.0)


class Scene(NamedTuple):
    """Things on a gray background, drawn in order."""

    things: tuple[Thing, ...]
    background: float = 0.87


def render(scene: Scene) -> Float[np.ndarray, "16 16 3"]:
    """Image [row, column, red-green-blue] of a scene, with values in [0, 1].

    Raises:
      ValueError: for an unknown glyph or color, or a thing that exceeds the image.
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
    """Detections of a perfect detector, in the order of the first pixel of each thing, row by row."""
    ordered = sorted(scene.things, key=lambda each: (each.row, each.column + ROWS[each.glyph][0].index("#")))
    return [
        Detection(each.glyph, 1.0, (each.column, each.row, each.column + EXTENT, each.row + EXTENT), each.color)
        for each in ordered
    ]


def are_separated(places: Int[np.ndarray, "... N 2"]) -> Bool[np.ndarray | np.bool_, "..."]:
    """Whether at least one free row or column separates any two boxes."""
    distances = np.abs(places[..., :, None, :] - places[..., None, :, :]).max(axis=-1)
    return np.all((distances > EXTENT) | np.eye(places.shape[-2], dtype=bool), axis=(-1, -2))


@functools.cache
def pair_places(relation: str | None) -> Int[np.ndarray, "P 2 2"]:
    """All separated places (row, column) of two things, the second within 41 degrees of the relation's direction."""
    line = np.arange(SIDE - EXTENT + 1)
    places = np.stack(np.meshgrid(line, line, line, line, indexing="ij"), axis=-1).reshape(-1, 2, 2)
    places = places[are_separated(places)]
    if relation is None:
        return places
    direction = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}[relation]
    offset = places[:, 1] - places[:, 0]
    cosine = offset @ np.array(direction) / np.linalg.norm(offset, axis=1)
    return places[cosine >= np.cos(WIDEST_ANGLE)]


def draw_places(rng: np.random.Generator, count: int, relation: str | None = None) -> Int[np.ndarray, "N 2"]:
    """Random separated places (row, column); three or more are in different 8 x 8 cells.

    Raises:
      ValueError: for more things than cells.
    """
    if count > MAX_THINGS:
        raise ValueError(f"scene.things: {count} exceed the cells; draw at most {MAX_THINGS}")
    if count < 2:
        return rng.integers(0, SIDE - EXTENT + 1, (count, 2))
    if count == 2:
        table = pair_places(relation)
        return table[rng.integers(len(table))]
    while True:
        cells = np.stack(np.divmod(rng.permutation(MAX_THINGS)[:count], SIDE // CELL), axis=1)
        places = cells * CELL + rng.integers(0, CELL - EXTENT + 1, (count, 2))
        if are_separated(places):
            return places


def draw_things(rng: np.random.Generator, metadata: Metadata) -> tuple[list[tuple[str, str]], str | None]:
    """Glyphs and colors that fulfill a prompt, with random colors where it names none, and its relation."""
    things = [
        (each["class"], each.get("color") or draw_other(rng, COLOR_NAMES))
        for each in metadata["include"]
        for _ in range(each["count"])
    ]
    relation = next((each["position"][0] for each in metadata["include"] if "position" in each), None)
    return things, relation


def draw_other(rng: np.random.Generator, names: tuple[str, ...], name: str | None = None) -> str:
    """Random element of `names` other than `name`."""
    others = [each for each in names if each != name]
    return others[rng.integers(len(others))]


def arrange(rng: np.random.Generator, things: list[tuple[str, str]], relation: str | None) -> Scene:
    """Scene of the things at random places, with a random background and random shades."""
    places = draw_places(rng, len(things), relation).tolist()
    jitters = rng.uniform(-JITTER, JITTER, (len(things), 3)).tolist()
    columns = zip(things, places, jitters, strict=True)
    scene = tuple(Thing(*thing, row, column, tuple(jitter)) for thing, (row, column), jitter in columns)
    return Scene(scene, rng.uniform(*BACKGROUND))


def correct_scene(rng: np.random.Generator, metadata: Metadata) -> Scene:
    """Random scene with exactly the things of a prompt."""
    return arrange(rng, *draw_things(rng, metadata))


def near_miss(rng: np.random.Generator, metadata: Metadata) -> Scene:
    """Random scene with one change: a thing is missing or surplus, or has another glyph, color or relation.

    Redrawn until the prompt is not fulfilled by GenEval's rules, since a change can preserve it: on a diagonal two
    relations hold, and four things leave no room for a fifth.
    """
    while True:
        things, relation = draw_things(rng, metadata)
        index = int(rng.integers(len(things)))
        glyph, color = things[index]
        match draw_other(rng, MISSES[metadata["tag"]]):
            case "missing":
                del things[index]
            case "extra":
                things = [*things, (glyph, draw_other(rng, COLOR_NAMES))][:MAX_THINGS]
            case "glyph":
                things[index] = (draw_other(rng, GLYPH_NAMES, glyph), color)
            case "color":
                things[index] = (glyph, draw_other(rng, COLOR_NAMES, color))
            case "swap":
                (first, first_color), (second, second_color) = things
                things = [(first, second_color), (second, first_color)]
            case "relation":
                relation = draw_other(rng, tuple(OPPOSITES), relation)
        scene = arrange(rng, things, relation)
        if not geneval.correct(metadata, objects(scene)):
            return scene


class Pool(NamedTuple):
    """Images in random order, with values in [0, 1], and whether each fulfills the prompt."""

    images: Float32[np.ndarray, "M 16 16 3"]
    correct: Bool[np.ndarray, " M"]


def pool(seed: int, metadata: Metadata, size: int = 192, correct: float = 0.35) -> Pool:
    """Images for a prompt, of which round(size * correct) fulfill it and the others are near misses.

    Raises:
      ValueError: for a share outside [0, 1] or no image.
    """
    if size < 1 or not 0 <= correct <= 1:
        raise ValueError(f"pool: size {size} with a correct share of {correct}; use at least 1 and a share in [0, 1]")
    rng = np.random.default_rng((seed, zlib.crc32(metadata["prompt"].encode())))
    verdicts = rng.permutation(size) < round(size * correct)
    scenes = [correct_scene(rng, metadata) if verdict else near_miss(rng, metadata) for verdict in verdicts]
    return Pool(np.stack([render(scene) for scene in scenes]).astype(np.float32), verdicts)


class Examples(NamedTuple):
    """Images with values 0 .. 255, word ids of their prompts, and the prompts."""

    images: UInt8[np.ndarray, "N 16 16 3"]
    tokens: Int32[np.ndarray, "N 8"]
    prompts: list[str]


class RewardExamples(NamedTuple):
    """`Examples` with GenEval's graded reward of the true objects, which is 1 if and only if a prompt is fulfilled."""

    images: UInt8[np.ndarray, "N 16 16 3"]
    tokens: Int32[np.ndarray, "N 8"]
    prompts: list[str]
    rewards: Float32[np.ndarray, " N"]


@functools.cache
def encoded_prompts(split: str) -> tuple[tuple[tuple[Metadata, Int[np.ndarray, "8"]], ...], ...]:
    """Metadata and word ids of all prompts of a split, by task."""
    return tuple(tuple((parse(text), encode(text)) for text in prompts(task, split)) for task in TASKS)


def draw_prompt(rng: np.random.Generator, split: str) -> tuple[Metadata, Int[np.ndarray, "8"]]:
    """Random prompt, uniform over tasks and over the prompts of a task."""
    task = encoded_prompts(split)[rng.integers(len(TASKS))]
    return task[rng.integers(len(task))]


def examples(seed: int, count: int, split: str = "train") -> Examples:
    """Correct scenes with their prompts, uniform over tasks, for training text-to-image models.

    The first examples do not depend on `count`.

    Raises:
      ValueError: for an unknown split.
    """
    rng, data = np.random.default_rng(seed), _empty(count)
    for index in range(count):
        metadata, data.tokens[index] = draw_prompt(rng, split)
        data.images[index] = _bytes(correct_scene(rng, metadata))
        data.prompts.append(metadata["prompt"])
    return data


def reward_examples(seed: int, count: int, split: str = "train") -> RewardExamples:
    """45 % correct scenes, 45 % near misses and 10 % scenes of another prompt, for training reward models.

    The first examples do not depend on `count`.

    Raises:
      ValueError: for an unknown split.
    """
    rng = np.random.default_rng((seed, 1))
    data = RewardExamples(*_empty(count), np.zeros(count, np.float32))
    for index in range(count):
        metadata, data.tokens[index] = draw_prompt(rng, split)
        kind = rng.random()
        if kind < 0.45:
            scene = correct_scene(rng, metadata)
        elif kind < 0.9:
            scene = near_miss(rng, metadata)
        else:
            unrelated = metadata
            while unrelated["prompt"] == metadata["prompt"]:
                unrelated, _ = draw_prompt(rng, split)
            scene = correct_scene(rng, unrelated)
        data.images[index] = _bytes(scene)
        data.prompts.append(metadata["prompt"])
        data.rewards[index] = geneval.reward(metadata, objects(scene))
    return data


def _bytes(scene: Scene) -> UInt8[np.ndarray, "16 16 3"]:
    return np.round(render(scene) * 255).astype(np.uint8)


def _empty(count: int) -> Examples:
    return Examples(np.zeros((count, SIDE, SIDE, 3), np.uint8), np.zeros((count, PROMPT_LENGTH), np.int32), [])
