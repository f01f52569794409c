"""Errors for invalid input to rows of G-Star: one line that names the field."""

import pytest

from configs.recipes.gstar import BASE
from tests.experiments.test_gstar import DEBUG, GAP, HEAD

GUIDED, UNGUIDED = ("sample", "G-Star-loop, 8"), ("sample", "ancestral, 8")
TRAINING = ("train", HEAD)
INVALID = {
    "no predictor to sample with": (UNGUIDED, {"sample.policy": "gstar"}, "sample.policy: "),
    "no planner": (UNGUIDED, {"sample.policy": "p2", "sample.remask.planner": True}, "sample.policy: "),
    "no predictor to train": (("train", BASE), {"objective.name": "errors"}, "objective.name: "),
    "kind": (TRAINING, {"start": "", "predictor.kind": "tail"}, "predictor.kind: unknown 'tail'"),
    "kind of all rows": (
        TRAINING,
        {"predictor.kind": "full"},
        f"predictor.kind: 'full' applies to every row, and '{BASE}' does not train a predictor; omit it and select the "
        "row: rows that train a predictor are 'predictor, head', 'predictor, block', 'predictor, full'",
    ),
    "causal": (TRAINING, {"start": "", "model.causal": True, "model.adaln": False}, "predictor.kind: "),
    "mlp": (TRAINING, {"model.net": "mlp"}, "predictor.kind: "),
    "objective": (TRAINING, {"objective.name": "nelbo"}, "predictor.kind: "),
    "no denoiser": (TRAINING, {"start": ""}, "start: "),
    "no weights": (TRAINING, {"checkpoint": "/no/weights"}, "checkpoint: /no/weights holds no weights"),
    "circle": (TRAINING, {"start": HEAD}, f"start: row '{HEAD}' starts from itself"),
    "labels": (TRAINING, {"predictor.labels": "guesses"}, "predictor.labels: unknown 'guesses'"),
    "loss": (TRAINING, {"predictor.loss": "hinge"}, "predictor.loss: unknown 'hinge'"),
    "scope": (TRAINING, {"predictor.scope": "some"}, "predictor.scope: unknown 'some'"),
    "no judge": (TRAINING, {"predictor.labels": "likelihood"}, "predictor.judge: "),
    "judge": (
        TRAINING,
        {"predictor.labels": "likelihood", "predictor.judge": BASE},
        f"predictor.judge: row '{BASE}' is not autoregressive",
    ),
    "rule": (UNGUIDED, {"sample.policy": "remdm", "sample.remask.rule": "some"}, "sample.remask.rule: unknown 'some'"),
    "schedule": (GUIDED, {"sample.remask.schedule": "wavy"}, "sample.remask.schedule: unknown 'wavy'"),
    "first hitting": (
        UNGUIDED,
        {"sample.policy": "first_hitting", "sample.remask.schedule": "loop"},
        "sample.remask.schedule: ",
    ),
    "loop's window": (GUIDED, {"sample.remask.on": 0.2, "sample.remask.off": 0.5}, "sample.remask: "),
    "loop's level": (GUIDED, {"sample.remask.level": 1.0}, "sample.remask: "),
    "window": (
        UNGUIDED,
        {"sample.policy": "star", "sample.remask.on": 0.2, "sample.remask.off": 0.5},
        "sample.remask: ",
    ),
    "eta": (UNGUIDED, {"sample.policy": "remdm", "sample.remask.eta": 1.5}, "sample.remask.eta: must lie in [0, 1]"),
    "causal gaps": (("sample", "AR"), {"sample.infill": GAP}, "sample.infill: "),
    "wide gaps": (UNGUIDED, {"sample.infill": 31}, "sample.infill: "),
    "gaps with a prompt": (UNGUIDED, {"sample.infill": GAP, "sample.prompt": "the"}, "sample.infill: "),
    "more gaps than windows": (UNGUIDED, {"sample.infill": GAP, "sample.count": 100_000}, "sample.count: "),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_input_is_one_line_that_names_the_field(cli, fields, case):
    (verb, row), overrides, message = INVALID[case]
    words = [f"--config.{name}={value}" for name, value in (fields | overrides).items()]
    status, out, err = cli(verb, DEBUG, f"--row={row}", *words)
    lines = err.strip().splitlines()
    assert (status, out, len(lines)) == (2, "", 1), err
    assert lines[0].startswith(f"launch.py: {message}")
