"""Configs that were stored before some fields were deleted: those of old jobs, plans and committed rows."""

import copy
import functools

# Deleted fields, each with the one value whose behavior remains.
DELETED = {
    "memory.rows": "masked",
    "predictor.augment": {"uniform": 0.0, "unigram": 0.0, "semantic": 0.0, "shuffle": 0.0},
    "embedding.mans.measure": "likelihood",
    "embedding.mans.anchors": [[0.0, 1.0], [0.5, 1.5], [1.0, 3.0]],
    "embedding.mans.temperature": 1.0,
    "sample.cache": False,
    "sample.chunk_point": 1.0,
    "sample.planes": [],
    "sample.translation.lengths": "around",
    "sample.translation.role": "reference",
}


def without_deleted(stored: dict) -> dict:
    """A stored config without its deleted fields.

    Raises:
      ValueError: for a deleted field with another value than the one whose behavior remains.
    """
    fields = copy.deepcopy(stored)
    for name, kept in DELETED.items():
        *sections, field = name.split(".")
        section = functools.reduce(lambda part, key: part.get(key, {}), sections, fields)
        value = section.pop(field, kept)
        if value != kept:
            raise ValueError(f"{name}: {value!r} is not supported since the field was deleted; only {kept!r} is")
    return fields
