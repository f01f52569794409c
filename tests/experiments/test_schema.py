"""The schema of fields: complete, true of the defaults, that of the library, and enforced."""

import math
from typing import get_args

from configs.base import FIELDS
from configs.schema import (
    Field,
    Range,
    below_one,
    check_values,
    count,
    default_values,
    not_negative,
    positive,
    share,
    up_to_one,
)
from diffusion.data import settings, splits
from diffusion.nets import encoder_decoder_io, error_predictor, subtoken_embedding
from diffusion.objectives import embedding, error_prediction, noise_scaling, perturbation
from diffusion.processes import gaussian
from diffusion.sampling.gaussian import steering
from diffusion.sampling.sequences.embedding import MODES
from diffusion.train.optimizer import Decay
from tests.checks import refused

UNBOUNDED = {"mesh.data", "mesh.fsdp", "mesh.model"}
# Names that the library checks too.
KNOWN = {
    "data.packing": settings.CHOICES["packing"],
    "data.document": settings.CHOICES["document"],
    "codec.merge": subtoken_embedding.MERGES,
    "predictor.kind": ("none", *error_predictor.KINDS),
    "predictor.labels": error_prediction.LABELS,
    "predictor.loss": error_prediction.LOSSES,
    "predictor.scope": error_prediction.SCOPES,
    "encoder_decoder.scale": encoder_decoder_io.SCALES,
    "process.prediction": gaussian.PREDICTIONS,
    "embedding.alternate": embedding.ALTERNATES,
    "embedding.rounding": embedding.ROUNDINGS,
    "embedding.floor": embedding.FLOORS,
    "embedding.scp.gap": perturbation.GAPS,
    "embedding.scp.couple": perturbation.COUPLES,
    "embedding.mans.map": noise_scaling.MAPS,
    "optimizer.decay": get_args(Decay),
    "evaluate.split": splits.NAMES,
    "sample.gaussian.steering.potential": steering.POTENTIALS,
    "sample.uniform.steering.potential": steering.POTENTIALS,
    "sample.translation.memory": MODES,
    "judge.reference": splits.NAMES,
}


def leaves(fields: dict, section: str = ""):
    """Yields the names of all fields, and what is known of each."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{section}{name}.")
        else:
            yield f"{section}{name}", value


def check(place: str, value, field: Field) -> None:
    """Check one field in its sections."""
    values, fields = value, field
    for name in reversed(place.split(".")):
        values, fields = {name: values}, {name: fields}
    check_values(values, fields)  # pyright: ignore[reportArgumentType]


def test_every_number_has_bounds_and_defaults_lie_in_them():
    assert {name for name, each in leaves(FIELDS) if type(each) in (int, float)} == UNBOUNDED
    check_values(default_values(FIELDS), FIELDS)


def test_choices_are_those_of_the_library():
    fields = dict(leaves(FIELDS))
    assert {name: set(fields[name].allowed) for name in KNOWN} == {name: set(names) for name, names in KNOWN.items()}


def test_every_bound_and_choice_is_enforced():
    for place, field in leaves(FIELDS):
        if isinstance(field, Field) and isinstance(field.allowed, Range):
            low, high = field.allowed.low, field.allowed.high
            for value in (low - 1, math.nan, "3") + ((high + 1,) if high < math.inf else ()):
                with refused(f"{place}: must .*, not {value!r}"):
                    check(place, value, field)
            with refused(f"{place}: must "):
                check(place, [low + 1e-9, low - 1e-9], field)
        elif isinstance(field, Field) and isinstance(field.allowed, type):
            with refused(f"{place}: must be a tuple whose elements must "):
                check(place, (None,), field)
        elif isinstance(field, Field):
            with refused(f"{place}: unknown 'other'; known: .*{sorted(field.allowed)[-1]}"):
                check(place, "other", field)


def test_ranges():
    for field, text, inside, outside in (
        (count(1), "be at least 1", (1, 7), (0, 0.5)),
        (not_negative(0), "not be negative", (0, 2.5), (-1e-9,)),
        (positive(1), "be positive", (1e-9,), (0, -1)),
        (share(0.5), "lie in [0, 1]", (0, 0.5, 1), (-1e-9, 1.01)),
        (up_to_one(0.5), "lie in (0, 1]", (1e-9, 1), (0, 1.01)),
        (below_one(0.5), "lie in [0, 1)", (0, 0.999), (-1e-9, 1)),
    ):
        assert str(field.allowed) == text
        assert all(value in field.allowed for value in inside)
        assert not any(value in field.allowed for value in outside)
