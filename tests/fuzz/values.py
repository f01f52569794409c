"""Values as a user types them, right and wrong, and names of fields, right and misspelt."""

from hypothesis import strategies as st

from configs.base import FIELDS
from configs.schema import Field, default_values

WORDS = st.sampled_from(
    ["", " ", "none", "None", "true", "x", "é", "日本", "\u2028", "a b", "a,b", "../x", "~", "/", "-1"]
)
TEXTS = WORDS | st.sampled_from(
    ["\udcff", "%s {}", "a\nb", "'", '"', "\\", "x" * 5000, "gs:/", "ftp://x/y", "file.txt"]
)
WHOLE = st.sampled_from(
    ["0", "1", "2", "3", "7", "-1", "-7", "100", "1000003", str(2**31), str(2**64), "9" * 40, "0x10"]
)
REAL = st.sampled_from(["0.5", "-0.5", "1.5", "1e-3", "nan", "-nan", "inf", "-inf", "1e308", "1e400", "1e-320", "-0.0"])
TUPLES = st.sampled_from(
    "() | (0,) | (1, 2) | (1, 'a') | ((1,),) | [1] | {'a': 1} | {} | ( | (nan,) | (None,) | (0, 0) | (1.5,) | (-1,) | "
    f"({2**70},) | (1e999,) | (True,) | ('x',) | 1, 2 | __import__('os').mkdir('executed') | lambda: 0".split(" | ")
)
VALUES = WHOLE | REAL | TUPLES | TEXTS
BY_TYPE = {
    int: WHOLE,
    float: REAL | WHOLE,
    str: TEXTS,
    bool: st.sampled_from(["True", "false", "1", "maybe"]),
    tuple: TUPLES,
}


def flat(fields: dict, section: str = "") -> dict:
    """Return the fields of nested sections by their whole names."""
    found = {}
    for name, value in fields.items():
        nested = isinstance(value, dict) and value
        found |= flat(value, f"{section}{name}.") if nested else {f"{section}{name}": value}
    return found


DEFAULTS = flat(default_values(FIELDS))
CHOICES = {
    name: each.allowed for name, each in flat(FIELDS).items() if isinstance(each, Field) and type(each.allowed) is tuple
}


@st.composite
def misspelt(draw):
    """Return a name that is close to that of a field, or that of a section."""
    name = draw(st.sampled_from(sorted(DEFAULTS)))
    at = draw(st.integers(0, len(name)))
    section = name.rpartition(".")[0] or name
    changed = [
        name[:at] + name[at + 1 :],
        f"{name[:at]}x{name[at:]}",
        f"{name[:at]}.{name[at:]}",
        f"{name}[0]",
        name.upper(),
    ]
    return draw(
        st.sampled_from([*changed, section, f"{name}.x", f"{section}.é", f"{name}.", "copy_and_resolve_references"])
    )


@st.composite
def overrides(draw, most: int = 3):
    """Return words that change fields, most of them of known names and fitting types."""
    words = []
    for _ in range(draw(st.integers(1, most))):
        if not draw(st.integers(0, 7)):
            name, value = draw(misspelt()), draw(VALUES)
        else:
            name = draw(st.sampled_from(sorted(DEFAULTS)))
            fitting = st.sampled_from(CHOICES[name]) if name in CHOICES else BY_TYPE.get(type(DEFAULTS[name]), VALUES)
            value = draw(fitting if draw(st.integers(0, 3)) else VALUES)
        words.append(f"--config.{name}={value}")
    return words
