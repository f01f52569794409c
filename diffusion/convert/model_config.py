"""JSON files of the folders of diffusers, with errors that name the file and the field."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def component(folder: Path, name: str) -> Path:
    """Return the folder of a component of a pipeline, or the folder itself if it is that of a single model.

    Raises:
      FileNotFoundError: if the pipeline has no such component.
    """
    if (folder / name).is_dir():
        return folder / name
    if (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"checkpoint: '{folder}' has no folder '{name}'; copy the whole pipeline")
    return folder


@dataclass(frozen=True)
class ModelConfig:
    """The fields of a JSON file, which were read from `path`."""

    path: Path
    fields: Mapping[str, Any]

    def get(self, field: str, default: Any, allowed: Collection[Any] = ()) -> Any:
        """Return the value of a field, one of `allowed` unless this is empty.

        Raises:
          ValueError: if the value is another one.
        """
        value = self.fields.get(field, default)
        if allowed and value not in allowed:
            raise self.refused(field, f"use {' or '.join(map(repr, allowed))}")
        return value

    def number(self, field: str, default: int) -> int:
        """Return a positive integer, which may be given once for each level if it is always the same.

        Raises:
          ValueError: if the value is another one.
        """
        value = self.fields.get(field, default)
        value = value[0] if isinstance(value, list) and value and all(each == value[0] for each in value) else value
        if type(value) is not int or value < 1:
            raise self.refused(field, "use a positive integer")
        return value

    def numbers(self, field: str, default: int | list[int], levels: int | None = None) -> tuple[int, ...]:
        """Return a positive integer for each level, where a single one stands for all of them.

        Raises:
          ValueError: if the value is another one.
        """
        value = self.fields.get(field, default)
        value = [value] * levels if type(value) is int and levels else value
        if (
            not isinstance(value, list)
            or any(type(each) is not int or each < 1 for each in value)
            or len(value) != (levels or len(value))
        ):
            raise self.refused(field, "use a list with a positive integer for each level")
        return tuple(value)

    def real(self, field: str, default: float) -> float:
        """Return a positive number.

        Raises:
          ValueError: if the value is another one.
        """
        value = self.fields.get(field, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise self.refused(field, "use a positive number")
        return float(value)

    def only(self, known: Mapping[str, Any], read: Collection[str]) -> None:
        """Check that fields have the values that are known to work.

        Raises:
          ValueError: if a field has another value than in `known`, or is set, not known and not among `read`.
        """
        for field, value in self.fields.items():
            if field in known and value != known[field]:
                raise self.refused(field, f"only {known[field]!r} is supported")
            unset = value is None or value is False or field.startswith("_")
            if field not in known and field not in read and not unset:
                raise self.refused(field, "this field is not supported")

    def refused(self, field: str, remedy: str) -> ValueError:
        """Return the error for a value that is not supported."""
        return ValueError(f"checkpoint: '{self.path}' has {field} = {self.fields.get(field, 'nothing')!r}; {remedy}")


def read_config(path: str | Path, classes: Collection[str], name: str, file: str = "config.json") -> ModelConfig:
    """Return the JSON file of a component `name`: of a pipeline's folder, of the component's, or this very file.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not readable, or not that of one of `classes`, unless these are empty.
    """
    path = Path(path)
    path = component(path, name) / file if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: '{path}' does not exist; copy it with the weights")
    try:
        fields = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"checkpoint: '{path}' is not a JSON file ({str(error).splitlines()[0]})") from None
    if not isinstance(fields, dict):
        raise ValueError(f"checkpoint: '{path}' is not a JSON object of fields; copy it again")
    config = ModelConfig(path, fields)
    if classes:
        config.get("_class_name", None, classes)
    return config
