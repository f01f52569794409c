"""Config files of tables."""

import importlib.util
from pathlib import Path
from types import ModuleType


def load_table(name: str) -> ModuleType:
    """The config file as a module: its TABLE and its rows."""
    path = Path(name.partition(":")[0])
    if not path.exists():
        raise ValueError(f"--config: {path} does not exist; give FILE[:VARIANT], such as configs/quickstart.py:local")
    spec = importlib.util.spec_from_file_location(f"table_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # as of every file of Python
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
