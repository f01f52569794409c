"""Comparison with recorded numbers: the fixture `golden(name, value)` for all tests of this folder.

The records of `test_NAME.py` are in `NAME.json`. `pytest tests/golden --update-golden` writes them again.

With the JAX version and the processor of the record, tokens must be equal and numbers must agree to `SAME`, six digits.
Otherwise XLA rounds differently: numbers must agree to `OTHER`, and the share `FLIPPED` of an entry's tokens, one of
eight samples, may differ. Measured between JAX 0.10.2 and 0.12.0.1 on 137 entries: no token differs, numbers differ by
up to 1.2e-6, and a mean near 0 by 1e-5. Code for AVX2 (XLA_FLAGS=--xla_cpu_max_isa=AVX2) and for AVX-512 gives the same
numbers to all digits. Intervals over sets of samples are small differences of their means, and must agree to `OTHER`
everywhere.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import pytest

SAME, OTHER, FLIPPED = 1e-6, 1e-4, 1 / 8
TOKENS = "tokens"  # field of an entry whose strings have one character per token
ADVICE = (
    "a refactoring must not change this; for an intended change, run `pytest --update-golden` and state the "
    "reason in the commit"
)


def environment() -> dict[str, str]:
    """Return what determines the rounding of XLA: its version, and its target processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    vectors = [flag for flag in fields.get("flags", "").split() if flag.startswith(("avx", "fma", "amx", "sse"))]
    return {"jax": jax.__version__, "processor": " ".join([fields.get("model name", ""), *vectors])}


def rounded(value: Any) -> Any:
    """Return the value as JSON data, with all numbers rounded to seven digits."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def differences(value: Any, recorded: Any, same: bool, field: str = "") -> Iterator[str]:
    """Yield the differences from the record as text."""
    if isinstance(value, dict) and isinstance(recorded, dict):
        for key in sorted(value.keys() | recorded.keys()):
            name = f"{field} {key}".strip()
            if key in value and key in recorded:
                yield from differences(value[key], recorded[key], same, name)
            else:
                yield f"{name} is new" if key in value else f"{name} is missing"
    elif isinstance(value, float) and isinstance(recorded, float):
        if not math.isclose(value, recorded, rel_tol=SAME if same and not field.endswith("_interval") else OTHER):
            yield f"{field} {value:.7g} was recorded as {recorded:.7g}"
    elif field == TOKENS and not same and [*map(len, value)] == [*map(len, recorded)]:
        pairs = list(zip("".join(value), "".join(recorded), strict=True))
        count = sum(one != other for one, other in pairs)
        if count > FLIPPED * len(pairs):
            yield f"{count} of {len(pairs)} tokens differ from those recorded"
    elif value != recorded:
        yield f"{field} {value} was recorded as {recorded}"


@dataclass
class Golden:
    """Records of one file."""

    file: Path
    update: bool

    def read(self) -> dict[str, Any]:
        """Return the entries with the environment of their record."""
        if self.file.exists():
            return json.loads(self.file.read_text())
        return {"environment": environment(), "entries": {}}

    def write(self, entries: dict[str, Any]) -> None:
        """Write the entries in the order of their names, one per line."""
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entries[name])}" for name in sorted(entries))
        self.file.write_text(f'{{"environment": {json.dumps(environment())},\n"entries": {{\n{lines}\n}}}}\n')

    def __call__(self, name: str, value: Any) -> None:
        """Compare a value with the record of this name, or record it."""
        read, value = self.read(), rounded(value)
        entry, same = f"golden {self.file.stem}/{name!r}", read["environment"] == environment()
        if self.update:
            # A file has the numbers of one environment only.
            self.write((read["entries"] if same else {}) | {name: value})
            return
        if name not in read["entries"]:
            pytest.fail(f"{entry} is not recorded; run `pytest --update-golden`", pytrace=False)
        lines = list(differences(value, read["entries"][name], same))
        if lines:
            pytest.fail("\n".join([*(f"{entry}: {line}" for line in lines), ADVICE]), pytrace=False)

    def complete(self, names: list[str]) -> None:
        """Compare the names of all records with those that tests produce, or delete the records of others."""
        entries = self.read()["entries"]
        if self.update:
            self.write({name: value for name, value in entries.items() if name in names})
            return
        for name in sorted(set(entries) ^ set(names)):
            problem = "recorded, but no test produces it" if name in entries else "not recorded"
            pytest.fail(f"golden {self.file.stem}/{name!r} is {problem};  run `pytest --update-golden`", pytrace=False)


@pytest.fixture
def golden(request) -> Golden:
    """Return the records of the test file."""
    file = request.path.with_name(f"{request.path.stem.removeprefix('test_')}.json")
    return Golden(file, request.config.getoption("update_golden"))
