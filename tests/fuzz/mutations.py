"""Damage to files: JSON with entries that are missing or of another type, and bytes that were cut or changed."""

import copy
import io
import pickle
import zipfile
from pathlib import Path

from hypothesis import strategies as st


class Payload:
    """An object whose pickle makes a folder in the working directory where it is loaded."""

    def __reduce__(self):
        return Path.mkdir, (Path("executed"),)


PICKLED = pickle.dumps(Payload())
NUMBERS = st.sampled_from([None, True, 0, -1, 1.5, 7, 10**40, float("nan"), float("inf")])
TEXTS = st.sampled_from(
    ["", "x", "../x", "../../x", "/x", "é\u2028", "a\nb", "x" * 5000, "\ud800", "-", ".", "train-x"]
)
JUNK = (
    NUMBERS
    | TEXTS
    | st.sampled_from([[], [1], [None], {}, {"a": 1}, [[[[1]]]], {"": {"": ""}}, ["x", 1], [float("inf")]])
)


def places(value, place=()):
    """Return the places of all entries of JSON data."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(*place, key) for key, _ in inner] + [each for key, part in inner for each in places(part, (*place, key))]


@st.composite
def changed(draw, value, most: int = 2):
    """Return JSON data of which some entries are missing, renamed, or replaced by something else."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, most))):
        found = places(value)
        if not found or not draw(st.integers(0, 19)):
            return draw(JUNK)
        # Outer entries are few, and read first.
        outer = [place for place in found if len(place) == 1]
        *above, key = draw(st.sampled_from(outer if draw(st.booleans()) else found))
        part = value
        for each in above:
            part = part[each]
        how = draw(st.integers(0, 3))
        if how == 0:
            del part[key]
        elif how == 1 and isinstance(part, dict):
            part[draw(st.sampled_from([f"{key}x", "", "é"]))] = part.pop(key)
        else:
            part[key] = draw(JUNK)
    return value


def archive(**members) -> bytes:
    """Return a zip archive with members of these names."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


WHOLE = [
    b"",
    b"\n",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"{}",
    b"[]",
    b"null",
    b"1",
    b'"x"',
    b"NaN",
    b"[" * 100_000,
    b'{"a":' * 50_000,
]
WHOLE += [
    PICKLED,
    b"\x80\x04.",
    archive(),
    archive(**{"archive/data.pkl": PICKLED}),
    b"\x1f\x8b\x08",
    b"%PDF-1.4",
    b"\x93NUMPY",
]


@st.composite
def damaged(draw, content: bytes):
    """Return bytes that were cut, changed or replaced."""
    at = draw(st.integers(0, len(content)))
    how = draw(st.integers(0, 7))
    if how == 0:
        return content[:at]
    if how == 1:
        return content[:at] + draw(st.binary(min_size=1, max_size=8)) + content[at + 1 :]
    if how == 2:
        return (
            content[:at]
            + draw(st.sampled_from([b"\xff", b"\0", b"\xe2\x80\xa8", b"\r", b"\n", b"\xed\xa0\x80"]))
            + content[at:]
        )
    if how == 3:
        return draw(
            st.sampled_from([b"\xef\xbb\xbf" + content, content.replace(b"\n", b"\r\n"), content.replace(b"\n", b"\r")])
        )
    if how == 4:
        return content[at:]
    if how == 5:
        return draw(st.binary(max_size=200))
    return draw(st.sampled_from(WHOLE))
