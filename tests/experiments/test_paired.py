"""Difference of two rows by seed, and errors for rows that cannot be compared."""

import pytest

from experiments.paired import difference

ROWS = [
    {"row": name, "seed": seed, "metrics": {"nats_per_token": value}}
    for name, values in {"First": (2.1, 3.2, 4.3), "Second": (2.0, 3.0, 4.0)}.items()
    for seed, value in enumerate(values)
] + [{"row": "One seed", "seed": 0, "metrics": {"nats_per_token": 1.0}}]


def test_differences_of_equal_seeds():
    """Differences are 0.1, 0.2, 0.3: the standard error is 0.1 / sqrt(3), half the interval 4.303 times that."""
    line = difference(ROWS, "First", "Second", "nats_per_token")
    assert line == "nats_per_token: First - Second = +0.200 ± 0.058, [-0.048, +0.448], 3 seeds"


@pytest.mark.parametrize(
    "names, metric, message",
    [
        (("First", "One seed"), "nats_per_token", r"seeds: rows of seeds \[0, 1, 2\] and \[0\] cannot be paired"),
        (("First", "Frist"), "nats_per_token", "row: 'Frist' has no nats_per_token; these have: 'First', 'Second'"),
        (("First", "Second"), "fid", "row: 'First' has no fid; these have: none"),
    ],
    ids=["seeds", "name", "metric"],
)
def test_rows_that_cannot_be_compared_raise(names, metric, message):
    with pytest.raises(ValueError, match=message):
        difference(ROWS, *names, metric)
