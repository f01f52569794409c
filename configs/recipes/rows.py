"""Rows of a table: a name, the overrides of its config, and the verbs that it runs."""


def evaluated(name: str, overrides: dict | None = None, **fields) -> dict:
    """A row whose model is evaluated; `fields` are further fields of the row, such as `seeds`."""
    return dict(name=name, overrides=overrides or {}, verbs=("evaluate",), **fields)


def sampled(name: str, overrides: dict, steps: int = 0, **fields) -> dict:
    """A row of samples, in `steps` steps unless 0."""
    settings = overrides | {"sample.steps": steps} if steps else overrides
    return dict(name=name, overrides=settings, verbs=("sample",), **fields)


def held_out(name: str = "Held-out text", **fields) -> dict:
    """The row of held-out data, measured like samples."""
    return sampled(name, {"sample.policy": "data"}, **fields)
