"""Prompts of glyph images and their splits, scenes that fulfill or miss them, and training examples."""

import json

import numpy as np

from diffusion.glyphs.prompts import (
    PROMPT_LENGTH,
    SPLITS,
    WORDS,
    encode,
    meanings,
    parse,
    prompts,
)
from diffusion.glyphs.world import (
    GLYPHS,
    MAX_THINGS,
    Scene,
    Thing,
    are_separated,
    correct_scene,
    draw_places,
    examples,
    near_miss,
    objects,
    pair_places,
    pool,
    render,
    reward_examples,
)
from diffusion.metrics import geneval
from diffusion.metrics.geneval import OPPOSITES, TASKS
from tests.checks import refused

ALL = [prompt for task in TASKS for prompt in prompts(task)]
RING, PLUS = {"class": "ring", "count": 1}, {"class": "plus", "count": 1}
KNOWN = {
    "a ring": ("single_object", [RING]),
    "a ring and a plus": ("two_object", [RING, PLUS]),
    "three pluses": ("counting", [PLUS | {"count": 3}]),
    "a purple ring": ("colors", [RING | {"color": "purple"}]),
    "a plus left of a ring": ("position", [RING, PLUS | {"position": ["left of", 0]}]),
    "a red plus and a green ring": ("color_attr", [PLUS | {"color": "red"}, RING | {"color": "green"}]),
}


def test_metadata_of_known_prompts():
    for prompt, (tag, include) in KNOWN.items():
        excluded = {"exclude": [{"class": "plus", "count": 4}]} if tag == "counting" else {}
        assert parse(prompt) == {"tag": tag, "include": include, **excluded, "prompt": prompt}
        assert json.loads(json.dumps(parse(f"  {prompt.upper()} "))) == parse(prompt)


def test_every_prompt_is_in_the_grammar_and_fits():
    assert len(WORDS) == len(set(WORDS)) == 25
    for task, count in zip(TASKS, (4, 12, 12, 24, 48, 360), strict=True):
        assert len(prompts(task)) == len(set(prompts(task))) == count
        assert {parse(prompt)["tag"] for prompt in prompts(task)} == {task}
    ids = np.stack([encode(prompt) for prompt in ALL])
    assert ids.shape == (460, PROMPT_LENGTH) and ids.dtype == np.int32
    assert [" ".join(WORDS[index] for index in row if index) for row in ids] == ALL
    assert set(ids.reshape(-1)) == set(range(len(WORDS)))


OUTSIDE = ["", "a red circl", "a ring and a ring", "one ring", "two ring", "five rings", "a red ring and a red plus"]
OUTSIDE += ["a ring beside a plus", "a ring left a plus", "a red ring above a plus", "a ring and a plus and a square"]


def test_other_prompts_tasks_and_splits_are_refused():
    for prompt in OUTSIDE:
        with refused(rf"^sample\.prompt: '{prompt}' is outside the grammar; .*'a purple ring'"):
            encode(prompt)
    with refused("task: unknown 'count'; use one of single_object, "):
        prompts("count")
    with refused("split: unknown 'dev'; use one of train, validation, test"):
        prompts("colors", "dev")


def meaning(prompt):
    """Meaning of a prompt, independent of its words: glyphs with colors, or the relation between two glyphs."""
    include = parse(prompt)["include"]
    relation = include[-1].get("position", [None])[0]
    things = tuple((each["class"], each["count"], each.get("color")) for each in include)
    if relation in ("right of", "below"):
        return OPPOSITES[relation], things[::-1]
    return relation, things if relation else frozenset(things)


def test_meanings_of_held_out_prompts_are_in_no_other_split():
    sizes = dict(two_object=(8, 2, 2), colors=(12, 6, 6), position=(32, 8, 8), color_attr=(240, 60, 60))
    for task, counts in sizes.items():
        parts = [prompts(task, split) for split in SPLITS]
        assert tuple(map(len, parts)) == counts
        assert sorted(sum(parts, ())) == sorted(prompts(task))
        part_meanings = [{meaning(prompt) for prompt in part} for part in parts]
        assert sum(map(len, part_meanings)) == len(set.union(*part_meanings)) == len(meanings(task))
    for task in ("single_object", "counting"):
        assert all(prompts(task, split) == prompts(task) for split in SPLITS)


def test_every_split_has_every_word_and_training_has_every_glyph_on_every_side():
    for task in ("colors", "position", "color_attr"):
        used = [{word for prompt in prompts(task, split) for word in prompt.split()} for split in SPLITS]
        assert all(each == {word for prompt in prompts(task) for word in prompt.split()} for each in used)
    located = [parse(text)["include"][1] for text in prompts("position", "train")]
    sides = {(*each["position"], each["class"]) for each in located}
    assert len(sides) == len(OPPOSITES) * len(GLYPHS)
    assert set(" ".join(prompts("two_object", "train")).split()) == {"a", "and", *GLYPHS}


def test_a_scene_is_rendered_at_its_places_and_in_its_colors():
    image = render(Scene((Thing("plus", "red", 2, 9, (0.03, -0.03, 0.0)), Thing("ring", "black", 11, 0)), 0.85))
    assert image.shape == (16, 16, 3) and 0 <= image.min() and image.max() <= 1
    drawn = np.any(image != 0.85, axis=-1)
    assert drawn.sum() == 9 + 16 and drawn[2:7, 11].all() and drawn[4, 9:14].all() and not drawn[13, 2]
    np.testing.assert_allclose(image[4, 9] * 255, [220 + 7.65, 40 - 7.65, 40])
    np.testing.assert_allclose(image[15, 4] * 255, 30)
    assert {name: int(mask.sum()) for name, mask in GLYPHS.items()} == dict(square=25, plus=9, ring=16, diamond=13)
    for thing in (("circle", "red", 0, 0), ("ring", "pink", 0, 0), ("ring", "red", 12, 0), ("ring", "red", 0, -1)):
        with refused(r"^scene\.things: Thing.* cannot be drawn; use square, .* columns 0 to 11$"):
            render(Scene((Thing(*thing),)))


def test_things_are_separated_and_obey_the_relation():
    rng = np.random.default_rng(0)
    for count in range(MAX_THINGS + 1):
        places = np.stack([draw_places(rng, count) for _ in range(100)])
        assert places.shape == (100, count, 2) and are_separated(places).all()
        if count > 2:
            cells = places // 8 @ [2, 1]
            assert all(len(set(row)) == count for row in cells.tolist()) and np.all(places % 8 <= 3)
    assert not are_separated(np.array([[0, 0], [5, 5]])) and are_separated(np.array([[0, 0], [0, 6]]))
    for relation, (axis, sign) in {"above": (0, -1), "below": (0, 1), "left of": (1, -1), "right of": (1, 1)}.items():
        offset = pair_places(relation)[:, 1] - pair_places(relation)[:, 0]
        angles = np.rad2deg(np.arctan2(np.abs(offset[:, 1 - axis]), sign * offset[:, axis]))
        assert 38 < angles.max() <= 41
        for pair in pair_places(relation)[::37].tolist():
            first, second = ((column, row, column + 5, row + 5) for row, column in pair)
            assert relation in geneval.relations(second, first)
    with refused(r"scene\.things: 5 exceed the cells; draw at most 4"):
        draw_places(rng, 5)


def test_correct_scenes_match_the_prompt_exactly_and_near_misses_differ_in_one_thing():
    rng = np.random.default_rng(1)
    for prompt in ALL:
        metadata = parse(prompt)
        count = sum(each["count"] for each in metadata["include"])
        right, wrong = correct_scene(rng, metadata), near_miss(rng, metadata)
        assert len(right.things) == count and abs(len(wrong.things) - count) <= 1
        assert geneval.correct(metadata, objects(right)) and not geneval.correct(metadata, objects(wrong))
        for scene in (right, wrong):
            assert 0.84 <= scene.background <= 0.90
            assert all(np.abs(thing.jitter).max() <= 0.03 for thing in scene.things)


def test_near_misses_have_every_kind_of_change():
    rng = np.random.default_rng(2)

    def misses(prompt, count=60):
        scenes = [near_miss(rng, parse(prompt)).things for _ in range(count)]
        return [sorted((thing.glyph, thing.color) for thing in things) for things in scenes]

    counted = misses("two rings")
    assert {len(things) for things in counted} == {1, 2, 3}
    assert all(len({glyph for glyph, _ in things}) == 2 for things in counted if len(things) == 2)
    named = misses("a red ring and a blue plus", 200)
    assert [("plus", "red"), ("ring", "blue")] in named and [("plus", "blue")] in named
    assert [("plus", "blue"), ("ring", "black")] in named and [("diamond", "red"), ("plus", "blue")] in named
    turned = [near_miss(rng, parse("a ring above a plus")).things for _ in range(200)]
    turned = [{thing.glyph: thing for thing in things} for things in turned]
    turned = [things["ring"].row - things["plus"].row for things in turned if set(things) == {"ring", "plus"}]
    assert max(turned) > 5 and np.any(np.abs(turned) < 5), "below, and beside"
    assert [] in misses("a ring") and {len(things) for things in misses("four rings")} == {3, 4}


def test_a_pool_has_the_requested_share_and_is_reproducible():
    metadata = parse("a ring above a plus")
    first, again = pool(3, metadata), pool(3, metadata)
    assert first.images.shape == (192, 16, 16, 3) and first.images.dtype == np.float32
    assert first.correct.dtype == bool and first.correct.sum() == 67  # .35 of 192 is 67.2
    assert np.array_equal(first.images, again.images) and np.array_equal(first.correct, again.correct)
    assert not np.array_equal(first.images, pool(4, metadata).images)
    assert not np.array_equal(first.correct, pool(3, parse("a plus below a ring")).correct)
    assert 20 < first.correct[:96].sum() < 47, "correct images are spread over the pool"
    assert pool(0, metadata, 8, 0).correct.sum() == 0 and pool(0, metadata, 8, 1).correct.sum() == 8
    with refused(r"^pool: size .* a share in \[0, 1\]$"):
        pool(0, metadata, 8, 1.5)


def test_examples_are_uniform_over_tasks_with_prompts_of_their_split_alone():
    data = examples(5, 1200)
    assert data.images.shape == (1200, 16, 16, 3) and data.images.dtype == np.uint8
    assert data.tokens.dtype == np.int32 and np.array_equal(data.tokens, [encode(text) for text in data.prompts])
    tags = [parse(text)["tag"] for text in data.prompts]
    assert all(150 < tags.count(task) < 250 for task in TASKS)
    assert set(data.prompts) <= {text for task in TASKS for text in prompts(task, "train")}
    shorter = examples(5, 50)
    assert np.array_equal(shorter.images, data.images[:50]) and shorter.prompts == data.prompts[:50]
    assert not np.array_equal(examples(6, 50).images, shorter.images)
    assert set(examples(5, 50, "test").prompts) <= {text for task in TASKS for text in prompts(task, "test")}


def test_reward_examples_are_correct_near_misses_and_unrelated():
    data = reward_examples(7, 1200)
    assert data.rewards.dtype == np.float32 and 0 <= data.rewards.min() and data.rewards.max() == 1
    assert 0.40 < np.mean(data.rewards == 1) < 0.51 and len(set(data.rewards)) > 5
    assert np.mean(data.rewards[data.rewards < 1]) > 0.3, "near misses earn a part of the reward"
    shorter = reward_examples(7, 20)
    assert all(np.array_equal(some, full[:20]) for some, full in zip(shorter, data, strict=True))
    held_out = {text for task in TASKS for text in prompts(task, "test")}
    assert set(reward_examples(7, 50, "test").prompts) <= held_out
