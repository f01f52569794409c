"""The command that judges estimators: its verdicts, and errors of one line."""

import subprocess
import sys

import pytest

from diffusion.oracles.__main__ import FLAGS, main


def without_rows(denoise, process, tokens, weights, draws):
    """An estimator that does not return one number per sequence."""
    return weights.sum()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("--process=blocks --estimator=bound_blocks --draws=1024", 0, "verdict    a bound, tight"),
        ("--estimator=joint_ce --draws=512", 1, "verdict    not a bound: Kraft sum"),
        ("--process=uniform --estimator=bound_uniform_steps_2 --draws=512", 3, "verdict    a bound, not tight"),
        ("--estimator=tests.oracles.test_command:without_rows", 2, "must return one number per sequence"),
        ("--estimator=tests.oracles.test_command:no_such", 2, "cannot load"),
        ("--process=blocks --estimator=bound_continuous", 2, "known: bound_blocks"),
        ("--process=uniform --estimator=bound_uniform --digits=2", 2, "--process: uniform goes with --digits=1"),
        ("--estimator=bound_continuous --digits=2 --language=markov", 2, "--digits: values above 1 need"),
        ("--estimator=nll_autoregressive --digits=2 --draws=64", 0, "verdict    a bound, tight"),
    ],
)
def test_verdicts(arguments, status, message, capsys):
    FLAGS.unparse_flags()
    assert main(["oracles", *arguments.split()]) == status
    output = capsys.readouterr()
    assert message in output.out + output.err and output.err.count("\n") == (status == 2)


def test_the_module_is_a_command():
    command = [sys.executable, "-m", "diffusion.oracles", "--process=uniform", "--estimator=bound_continuous"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "known: bound_uniform" in result.stderr and "Traceback" not in result.stderr
