"""Input that G-Star's rows refuse, in one line that names the field."""

import pytest

from configs.recipes.gstar import BASE
from tests.experiments.test_gstar import DEBUG, GAP, HEAD

ASKING, NOT = ("sample", "G-Star-loop, 8"), ("sample", "ancestral, 8")
LEARNING = ("train", HEAD)
BAD = {
    "no predictor to ask": (NOT, {"sample.policy": "gstar"}, "sample.policy: "),
    "no planner": (NOT, {"sample.policy": "p2", "sample.remask.planner": True}, "sample.policy: "),
    "no predictor to train": (("train", BASE), {"objective.name": "errors"}, "objective.name: "),
    "kind": (LEARNING, {"start": "", "predictor.kind": "tail"}, "predictor.kind: unknown 'tail'"),
    "kind of all rows": (
        LEARNING,
        {"predictor.kind": "full"},
        f"predictor.kind: 'full' reaches every row, and '{BASE}' trains no predictor; leave it out and choose the row: "
        "rows with a predictor of their own are 'predictor, head', 'predictor, block', 'predictor, full'",
    ),
    "causal": (LEARNING, {"start": "", "model.causal": True, "model.adaln": False}, "predictor.kind: "),
    "mlp": (LEARNING, {"model.net": "mlp"}, "predictor.kind: "),
    "objective": (LEARNING, {"objective.name": "nelbo"}, "predictor.kind: "),
    "no denoiser": (LEARNING, {"start": ""}, "start: "),
    "no weights": (LEARNING, {"checkpoint": "/no/weights"}, "checkpoint: /no/weights holds no weights"),
    "circle": (LEARNING, {"start": HEAD}, f"start: row '{HEAD}' starts from itself"),
    "labels": (LEARNING, {"predictor.labels": "guesses"}, "predictor.labels: unknown 'guesses'"),
    "loss": (LEARNING, {"predictor.loss": "hinge"}, "predictor.loss: unknown 'hinge'"),
    "scope": (LEARNING, {"predictor.scope": "some"}, "predictor.scope: unknown 'some'"),
    "augment": (LEARNING, {"predictor.augment.uniform": 2.0}, "predictor.augment.uniform: "),
    "no judge": (LEARNING, {"predictor.labels": "likelihood"}, "predictor.judge: "),
    "judge": (
        LEARNING,
        {"predictor.labels": "likelihood", "predictor.judge": BASE},
        f"predictor.judge: row '{BASE}' is not autoregressive",
    ),
    "rule": (NOT, {"sample.policy": "remdm", "sample.remask.rule": "some"}, "sample.remask.rule: unknown 'some'"),
    "schedule": (ASKING, {"sample.remask.schedule": "wavy"}, "sample.remask.schedule: unknown 'wavy'"),
    "first hitting": (
        NOT,
        {"sample.policy": "first_hitting", "sample.remask.schedule": "loop"},
        "sample.remask.schedule: ",
    ),
    "loop's window": (ASKING, {"sample.remask.on": 0.2, "sample.remask.off": 0.5}, "sample.remask: "),
    "loop's level": (ASKING, {"sample.remask.level": 1.0}, "sample.remask: "),
    "window": (
        NOT,
        {"sample.policy": "star", "sample.remask.on": 0.2, "sample.remask.off": 0.5},
        "sample.remask: ",
    ),
    "eta": (NOT, {"sample.policy": "remdm", "sample.remask.eta": 1.5}, "sample.remask.eta: must lie in [0, 1]"),
    "causal gaps": (("sample", "AR"), {"sample.infill": GAP}, "sample.infill: "),
    "wide gaps": (NOT, {"sample.infill": 31}, "sample.infill: "),
    "gaps behind a prompt": (NOT, {"sample.infill": GAP, "sample.prompt": "the"}, "sample.infill: "),
    "more gaps than windows": (NOT, {"sample.infill": GAP, "sample.count": 100_000}, "sample.count: "),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_that_names_the_field(cli, fields, case):
    (verb, row), wrong, said = BAD[case]
    words = [f"--config.{name}={value}" for name, value in (fields | wrong).items()]
    status, out, err = cli(verb, DEBUG, f"--row={row}", *words)
    lines = err.strip().splitlines()
    assert (status, out, len(lines)) == (2, "", 1), err
    assert lines[0].startswith(f"launch.py: {said}")
