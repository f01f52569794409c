"""The verb `sample`: draw examples from one model, count what they cost, and measure them."""

import time

from diffusion.report.rows import provenance
from experiments.run_context import Run
from experiments.tasks import task_of


def check(run: Run) -> None:
    """Raise ValueError for what the data's task finds wrong, before anything is trained."""
    task_of(run.dataset).check(run)


def execute(run: Run) -> dict:
    """Sample, write the samples, and return their metrics and provenance."""
    begin = time.time()
    result = task_of(run.dataset).sample(run)
    return {
        **result,
        "domain": run.dataset.domain,
        "seconds": time.time() - begin,
        "data": run.dataset.fingerprint,
        **provenance(),
    }
