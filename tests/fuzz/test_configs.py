"""Plans of every table with fields and values that nobody chose."""

from hypothesis import strategies as st

from tests.fuzz import values
from tests.fuzz.commands import ROOT, case, checked, holds, lanes

TABLES = sorted(path for path in (ROOT / "configs").glob("*.py") if "\nTABLE = " in path.read_text())


@lanes(fast=4, slow=150)
def test_fields(count, base):
    def check(words):
        with case(base) as place:
            checked(place, *words)

    tables = st.sampled_from(TABLES).map(lambda table: ["plan", f"--config={table}:debug"])
    holds(check, st.builds(list.__add__, tables, values.overrides()), count)
