"""Config files of tables for tests, as modules without files."""

from types import ModuleType

from configs.base import defaults


def table_file(**fields):
    """Return a module with these names, such as `TABLE` and `rows` of a table."""
    module = ModuleType("table")
    vars(module).update({"get_config": lambda variant: defaults("table", variant)} | fields)
    return module
