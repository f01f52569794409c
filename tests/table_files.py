"""Config files of tables for tests, as modules that no file holds."""

from types import ModuleType


def table_file(**fields):
    """A module with these names: a table's `TABLE` and `rows`."""
    module = ModuleType("table")
    vars(module).update(fields)
    return module
