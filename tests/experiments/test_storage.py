"""Paths of object stores: schemes, whole files, copies and leases, on a store in memory."""

import importlib.util
import os
import subprocess
import sys
import threading
import time

import pytest

from diffusion import storage
from diffusion.storage import paths
from experiments import leases
from experiments.contents import content_hash
from experiments.hosts import appears
from tests.experiments.conftest import ROOT, one_line

DEBUG = "--config=configs/quickstart.py:debug"


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """Return a folder of a store in memory, and keep copies in the folder of the test."""
    memory = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem()
    memory.store.clear()
    monkeypatch.setattr(paths, "filesystem", lambda scheme: memory)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    storage.fetched_text.cache_clear()
    yield storage.path_of("gs://bucket/folder")
    memory.store.clear()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("http://host/file", ["unknown scheme http://", "gs:// or s3://"]),
        ("gs://", ["names no bucket", "gs://BUCKET"]),
        ("s3://bucket/x", ["needs the package s3fs", "pip install s3fs"]),
        ("gs://bucket/x", ["needs the package gcsfs", "pip install gcsfs"]),
    ],
)
def test_paths_that_cannot_be_used_are_one_line(monkeypatch, text, parts):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError) as error:
        storage.path_of(text)
    assert all(part in str(error.value) for part in [text, *parts])


def test_an_unknown_scheme_ends_every_command_in_one_line(cli, monkeypatch):
    one_line(cli("plan", DEBUG, "--config.data.path=ftp://host/x"), "ftp://host/x", "unknown scheme", "gs:// or s3://")
    one_line(cli("run", "--jobs=ftp://host/jobs.jsonl"), "unknown scheme")
    one_line(cli("convert", "--from=gpt2", "--checkpoint=ftp://host/x"), "unknown scheme")


def test_local_paths_are_plain_paths():
    for text in ("runs", "/a b", "~/x", "a,b", "gs:/x"):
        assert type(storage.path_of(text)) is type(ROOT) and str(storage.path_of(text)) == text
        assert storage.fetched_text(text) == text


def test_paths_of_a_store_behave_as_paths(bucket):
    file = bucket / "a" / "b.json"
    assert (str(file), file.name, file.suffix, str(file.parent)) == (
        "gs://bucket/folder/a/b.json",
        "b.json",
        ".json",
        "gs://bucket/folder/a",
    )
    assert os.fspath(file) == str(file) and file.absolute() == file and file == bucket / "a/b.json"
    assert str(file.relative_to(bucket)) == "a/b.json"
    assert not file.exists() and not bucket.is_dir()
    file.write_text("é\n")
    (bucket / "a" / "c.txt").write_bytes(b"c")
    assert file.is_file() and bucket.is_dir() and not bucket.is_file()
    assert file.read_text() == "é\n" and file.open().read() == "é\n"
    assert sorted(map(str, (bucket / "a").iterdir())) == [str(file), str(bucket / "a" / "c.txt")]
    assert [str(each) for each in bucket.glob("*/b.json")] == [str(file)]
    with pytest.raises(ValueError, match="cannot change a part"):
        file.open("a")
    (bucket / "a").rename(bucket / "z" / "a.1")
    assert not (bucket / "a").exists() and (bucket / "z" / "a.1" / "b.json").read_text() == "é\n"
    storage.remove(bucket)
    storage.remove(bucket)
    assert not bucket.exists()


WRITE_OFTEN = """
import sys
from pathlib import Path
from diffusion.storage import atomic_write
for _ in range(200):
    atomic_write(Path(sys.argv[1]), sys.argv[2] * 50_000)
"""


def test_concurrent_writers_never_tear_a_file(tmp_path):
    path = tmp_path / "folder" / "result.json"
    writers = [subprocess.Popen([sys.executable, "-c", WRITE_OFTEN, path, letter], cwd=ROOT) for letter in "abc"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        seen |= {(len(text), len(set(text))) for text in ([path.read_text()] if path.exists() else [])}
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert seen <= {(50_000, 1)} and len(path.read_text()) == 50_000
    assert os.listdir(path.parent) == ["result.json"]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "table.md"
    storage.atomic_write(path, "old")
    with pytest.raises(RuntimeError, match="disk"), storage.written(path) as partial:
        partial.write_text("half")
        raise RuntimeError("disk")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["table.md"]


def test_new_files_have_the_usual_permissions(tmp_path):
    storage.atomic_write(tmp_path / "a", "")
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_files_are_put_whole(bucket):
    with storage.written(bucket / "image.png") as file:
        assert file.suffix == ".png"
        file.write_bytes(b"pixels")
        assert not (bucket / "image.png").exists()
    assert (bucket / "image.png").read_bytes() == b"pixels" and not file.exists()


def test_appended_lines_are_put_at_checkpoints(bucket, tmp_path):
    for path in (bucket / "metrics.jsonl", tmp_path / "metrics.jsonl"):
        path.write_text("1\n")
        log = storage.Appender(path)
        log.write("2\n")
        assert path.read_text() == ("1\n" if path.parent == bucket else "1\n2\n")
        log.put()
        log.write("3\n")
        log.close()
        assert path.read_text() == "1\n2\n3\n"


def test_copies_follow_their_store(bucket):
    (bucket / "data" / "a.txt").write_text("one")
    (bucket / "data" / "sub" / "b.txt").write_text("two")
    copy = storage.fetched(bucket / "data")
    assert (copy / "sub" / "b.txt").read_text() == "two"
    (bucket / "data" / "a.txt").write_text("ONE!")
    (bucket / "data" / "sub" / "b.txt").unlink()
    assert storage.fetched(bucket / "data") == copy
    assert (copy / "a.txt").read_text() == "ONE!" and not (copy / "sub" / "b.txt").exists()
    assert storage.as_given(f"{copy}/a.txt is bad") == "gs://bucket/folder/data/a.txt is bad"
    assert not storage.fetched(bucket / "none").exists()


def test_data_of_a_store_have_the_hash_of_local_data(bucket, tmp_path):
    """Jobs on the same files have the same ids, wherever the files are."""
    (tmp_path / "data").mkdir()
    for place in (tmp_path / "data", bucket / "data"):
        (place / "a.txt").write_text("the text")
    assert content_hash(str(bucket / "data")) == content_hash(str(tmp_path / "data")) != ""
    assert content_hash(f"{bucket}/none") == ""


def test_an_upload_is_equal_to_its_folder(bucket, tmp_path):
    for name, text in {"x/1": "a", "x/2": "bb", "DONE": "c"}.items():
        storage.atomic_write(tmp_path / "w" / name, text)
    (bucket / "w" / "old").write_text("old")
    storage.upload(tmp_path / "w", bucket / "w")
    copy = storage.fetched(bucket / "w")
    assert {str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file()} == {"x/1", "x/2", "DONE"}


def test_a_lease_is_held_by_one_command(bucket, capsys):
    file, events = bucket / "locks" / "job", []

    def work(name):
        with leases.leased(file, "job", seconds=1.0, settle=0.05):
            events.append(("in", name))
            time.sleep(1.5)  # longer than a lease that is not renewed
            events.append(("out", name))

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [kind for kind, _ in events] == ["in", "out", "in", "out"] and len({name for _, name in events}) == 2
    assert "another command is at it" in capsys.readouterr().err
    assert not file.exists()


def test_an_expired_or_damaged_lease_is_taken_over(bucket):
    file = bucket / "locks" / "job"
    for text in (leases.lease("killed", -1.0), "damaged"):
        file.write_text(text)
        with leases.leased(file, "job", seconds=30.0, settle=0.0):
            assert leases.read(file)[0] not in ("", "killed")


def test_stores_without_conditions_give_a_lease_to_one(bucket, monkeypatch):
    """Where the store writes regardless, whoever wrote last has the lease, and the others see that."""
    monkeypatch.setattr(
        type(bucket), "create", lambda self, text: not self.exists() and (time.sleep(0.02) or self.write_text(text) > 0)
    )
    file, inside, most = bucket / "locks" / "job", [], []

    def work():
        with leases.leased(file, "job", seconds=0.9, settle=0.2):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.1)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def test_files_that_appear_late_are_seen(tmp_path):
    file = tmp_path / "token"
    threading.Timer(0.2, lambda: file.write_text("")).start()
    assert appears(file)
    assert not appears(tmp_path / "none", tries=2)
