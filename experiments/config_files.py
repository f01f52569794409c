"""Config files of tables."""

import importlib.util
from pathlib import Path
from types import ModuleType


def load_table(name: str) -> ModuleType:
    """The config file as a module: its TABLE and its rows."""
    path = Path(name.partition(":")[0])
    if not path.is_file():
        raise ValueError(f"--config: {path} does not exist; give FILE[:VARIANT], such as configs/quickstart.py:local")
    spec = importlib.util.spec_from_file_location(f"table_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"--config: {path} is not a Python file; give FILE[:VARIANT], such as configs/quickstart.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if missing := [each for each in ("TABLE", "get_config", "rows") if not hasattr(module, each)]:
        raise ValueError(f"--config: {path} has no {missing[0]}; write it as in configs/quickstart.py")
    return module
