"""`--profile=STEPS`: a trace of training steps in the folder of the job."""

import pytest

from tests.experiments.conftest import one_line, words_of

ROW = ("--config=configs/quickstart.py:debug", "--row=MDLM")


def test_a_training_writes_a_trace_of_its_steps(cli, succeed, fields, tmp_path):
    words = (*ROW, *words_of(fields | {"train.steps": 14, "train.evaluate_every": 14}))
    _, err = succeed("train", *words, "--profile=3")
    (folder,) = (tmp_path / "runs" / "jobs").glob("train-*/profile")
    line = next(line for line in err.splitlines() if line.startswith("profile: "))
    assert "steps 11 to 13 " in line and str(folder) in line
    assert [path for path in folder.rglob("*.xplane.pb") if path.stat().st_size]
    one_line(cli("train", *words, "--profile=3"), "--profile", "done", "--redo")


@pytest.mark.parametrize("steps", [5, -1])
def test_steps_that_no_training_has_are_refused(cli, fields, tmp_path, steps):
    words = (*ROW, *words_of(fields | {"train.steps": 14}))
    one_line(cli("train", *words, f"--profile={steps}"), "--profile", "train.steps=14")
    assert not (tmp_path / "runs" / "jobs").exists()
