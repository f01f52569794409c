"""The verb `evaluate`: one model on a held-out split, by likelihood estimators or by its ranking of examples."""

import time
from pathlib import Path

from diffusion.report.rows import provenance
from diffusion.train.mesh import check_batch
from experiments import families
from experiments.run_context import Run
from experiments.tasks import likelihood, ranking, zero_shot

MEASURES = {"likelihood": likelihood.measure, "ranking": ranking.measure}


def check(run: Run) -> None:
    """Raise ValueError for unsuitable estimators, an indivisible batch, or missing data."""
    config = run.config
    for name in families.estimators(config):
        families.estimate(config, run.system, name)
    check_batch(config.evaluate.batch, run.mesh, field="evaluate.batch")
    run.dataset.split(config.evaluate.split)
    for name, fields in config.evaluate.zero_shot.items():
        path = fields.get("path", "")
        if config.evaluate.zero_shot_required and not (path and Path(path).expanduser().exists()):
            field = f"evaluate.zero_shot.{name}.path"
            raise ValueError(
                f"{field}: {path!r} does not exist; pass --config.{field}=FILE_OR_FOLDER, or "
                "--config.evaluate.zero_shot_required=False to leave empty cells"
            )
    if config.evaluate.zero_shot_required:
        zero_shot.read(run)


def execute(run: Run) -> dict:
    """Measure the split, and return metrics and provenance of the result row."""
    begin = time.time()
    result = MEASURES[run.family.MEASURED_BY](run)
    return {
        **result,
        "split": run.config.evaluate.split,
        "seconds": time.time() - begin,
        "data": run.dataset.fingerprint,
        **provenance(),
    }
