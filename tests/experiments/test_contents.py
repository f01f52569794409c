"""Content of the user's files, which stands for their paths in ids."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from configs.base import defaults
from configs.recipes.small import tiny
from experiments import contents
from experiments.plan import plan, resolve
from tests.checks import refused

ROWS = [dict(name="MDLM", overrides={}, verbs=("evaluate", "sample"))]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Return the record of hashes, in a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    contents.reread()
    yield contents.record_file()
    contents.reread()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "texts"
    (path / "part").mkdir(parents=True)
    (path / "one.txt").write_text("one")
    (path / "part" / "two.txt").write_text("two")
    return path


def ids(**fields):
    """Return the ids of a plan by verb, with these config fields (`__` for the dot)."""
    overrides = {"codec.digits": 2} | {name.replace("__", "."): value for name, value in fields.items()}
    config = resolve(tiny(defaults("test", "debug")), overrides, 0)
    return {job.verb: job.id for job in plan(ROWS, config)}


def changed(before, after):
    """Return the verbs whose ids differ."""
    return {verb for verb in before if before[verb] != after[verb]}


ALL = {"train", "evaluate", "sample"}


@pytest.mark.parametrize(
    ("field", "verbs"),
    [
        ("data__path", ALL),
        ("data__tokenizer_path", ALL),
        ("codec__permutation", ALL),
        ("checkpoint", {"evaluate", "sample"}),
        ("judge__checkpoint", {"sample"}),
        ("judge__tokenizer_path", {"sample"}),
        ("sample__source", {"sample"}),
        ("sample__translation__bertscore", {"sample"}),
    ],
)
def test_content_counts_and_the_place_does_not(field, verbs, folder, tmp_path):
    before = ids(**{field: str(folder)})
    assert changed(before, ids()) == verbs
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / "renamed")
    (moved / ".DS_Store").write_text("hidden files are not data")
    assert ids(**{field: str(moved)}) == before
    (moved / "part" / "two.txt").write_text("too")
    assert changed(before, ids(**{field: str(moved)})) == verbs
    (moved / "part" / "two.txt").write_text("two")
    (moved / "part" / "two.txt").rename(moved / "part" / "three.txt")
    assert ids(**{field: str(moved)}) != before, "names of files count"


def test_a_place_is_written_in_several_ways(folder, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    for path in (f"{folder}/", "texts", "./texts/", "link"):
        assert ids(data__path=path) == ids(data__path=str(folder))


def test_a_path_that_is_not_here_stands_for_itself(tmp_path):
    absent, other = ids(data__path=str(tmp_path / "no")), ids(data__path=str(tmp_path / "nor"))
    assert absent != other and absent != ids()
    assert contents.content_hash("") == "", "no path is not the working directory"


def test_zero_shot_sets_count_by_content(folder, tmp_path):
    def sets(path):
        return ids(evaluate__zero_shot={"ptb": {"source": "ptb", "path": str(path)}})

    before = sets(folder)
    moved = folder.rename(tmp_path / "moved")
    assert sets(moved) == before
    (moved / "one.txt").write_text("changed")
    assert changed(before, sets(moved)) == {"evaluate"}


def test_pairs_are_those_of_the_subfolder_of_their_source(tmp_path):
    (tmp_path / "iwslt14").mkdir()
    (tmp_path / "iwslt14" / "train.de").write_text("ja")
    job = dict(data__source="iwslt14", data__path=str(tmp_path))
    before = ids(**job)
    (tmp_path / "wmt14").mkdir()
    (tmp_path / "wmt14" / "train.de").write_text("nein")
    assert ids(**job) == before, "other sources do not count"
    assert ids(data__source="iwslt14", data__path=str(tmp_path / "iwslt14")) == before


def test_jobs_carry_what_entered_their_ids(folder):
    config = tiny(defaults("test", "debug"))
    for config.data.path in ("not/here", str(folder)):
        known = {config.data.path: contents.content_hash(config.data.path)} if config.data.path == str(folder) else {}
        assert all(job.contents == known for job in plan(ROWS, config))


def test_large_files_are_hashed_once(folder, cache, monkeypatch):
    monkeypatch.setattr(contents, "REMEMBERED", 3)
    before = contents.content_hash(str(folder))
    assert set(json.loads(cache.read_text())) == {str(folder / "one.txt"), str(folder / "part" / "two.txt")}
    with monkeypatch.context() as patch:
        patch.setattr(contents.hashlib, "file_digest", None)
        contents.reread()
        assert contents.content_hash(str(folder)) == before
    (folder / "one.txt").write_text("eno")
    os.utime(folder / "one.txt", ns=(1, 1))
    contents.reread()
    assert contents.content_hash(str(folder)) != before


@pytest.mark.parametrize("text", ["not json", '{"a": 1}'])
def test_a_broken_record_is_made_again(text, folder, cache, monkeypatch):
    before = contents.content_hash(str(folder))
    cache.parent.mkdir(parents=True)
    cache.write_text(text)
    monkeypatch.setattr(contents, "REMEMBERED", 0)
    contents.reread()
    assert contents.content_hash(str(folder)) == before
    assert len(json.loads(cache.read_text())) == 2


def test_several_writers_leave_a_whole_record(cache):
    """An entry may be lost, but the record can always be read."""

    def write_many(start):
        for index in range(50):
            contents.write_record({f"{start}/{index}": [1, 2, "hash"]})

    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write_many, start) for start in range(3)]
        while not all(writer.done() for writer in writers):
            assert not cache.exists() or json.loads(cache.read_text())
    assert not any(writer.exception() for writer in writers)
    assert {len(entry) for entry in contents.read_record().values()} == {3}
    assert not list(cache.parent.glob("*.partial"))


def test_a_file_that_cannot_be_read_is_one_line(folder, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "one.txt")

    monkeypatch.setattr(contents, "size_and_time", refuse)
    with refused(r"data: one\.txt cannot be read \(Permission denied\); allow it"):
        contents.content_hash(str(folder))
