"""Data files of every format, damaged or of another kind, and folders and links in their place."""

import json
from pathlib import Path

from hypothesis import strategies as st

from tests.fuzz import mutations, samples_of_data, values
from tests.fuzz.commands import case, checked, holds, lanes

CHANGES = [f"--config.data.{name}={value}" for name, value in [
    ("document", "file"), ("packing", "padded"), ("length", 3), ("length", 4096), ("field", "x"), ("field", "1"),
    ("labels", "folder"), ("resize", "crop"), ("reverse", True), ("lower", True), ("validation_documents", 1),
    ("validation_images", 0), ("bos_eos", False), ("tokenizer", "file"), ("alphabet", "abc"), ("source_field", "1"),
    ("tokenizer_path", "none"), ("source", "text_files"), ("flip", True),
]]  # fmt: skip
ENTRIES = (".json", ".jsonl")


def place_in(data, place: Path, file: Path, content: bytes) -> None:
    """Write a file, damage it, or put a folder or a link in its place."""
    how = data.draw(st.integers(0, 11))
    if how < 3 and file.suffix in ENTRIES:
        first, *others = content.split(b"\n")
        changed = json.dumps(data.draw(mutations.changed(json.loads(first)))).encode()
        file.write_bytes(b"\n".join([changed, *others]))
    elif how < 8:
        file.write_bytes(data.draw(mutations.damaged(content)))
    elif how == 8:
        file.write_bytes(b"x" * 2**21)
    elif how == 9:
        data.draw(st.sampled_from([file.mkdir, lambda: None]))()
    elif how == 10:
        file.symlink_to(data.draw(st.sampled_from([file, place / "none", place, Path("/dev/null")])))
    else:
        file.write_bytes(content)


@lanes(fast=5, slow=170)
def test_files(count, base):
    def check(data):
        name = data.draw(st.sampled_from(sorted(samples_of_data.DATA)))
        words, fields, files, path = samples_of_data.DATA[name]
        with case(base) as place:
            chosen = data.draw(st.sampled_from(sorted(files)))
            for file, content in files.items():
                (place / file).parent.mkdir(parents=True, exist_ok=True)
                if file == chosen:
                    place_in(data, place, place / file, content)
                else:
                    (place / file).write_bytes(content)
            given = [f"--config.data.{field}={value}" for field, value in fields.items()]
            given += data.draw(st.lists(st.sampled_from(CHANGES), max_size=1)) if data.draw(st.booleans()) else []
            checked(place, *words, *given, f"--config.data.path={path}")

    holds(check, st.data(), count)


@lanes(fast=4, slow=30)
def test_permutations(count, base):
    def check(data):
        name = data.draw(st.sampled_from(sorted(samples_of_data.CODED)))
        with case(base) as place:
            (place / "text.txt").write_bytes(samples_of_data.TEXT)
            place_in(data, place, place / name, samples_of_data.CODED[name])
            suffix = data.draw(st.sampled_from(["", "", ".npy", ".pt", ".json"]))
            if suffix and (place / name).is_file():
                name = (place / name).rename(place / f"other{suffix}").name
            fields = ["--config.codec.digits=2", f"--config.codec.permutation={name}"]
            checked(
                place, *samples_of_data.TRAIN, *fields, *data.draw(values.overrides(1) if how(data) else st.just([]))
            )

    holds(check, st.data(), count)


def how(data) -> bool:
    """Draw whether another field changes too."""
    return not data.draw(st.integers(0, 4))
