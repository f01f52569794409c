"""What a partial table lacks: jobs that are not done, by row and seed, with the reason of those that failed."""

from collections.abc import Sequence
from pathlib import Path

from experiments.plan import Job
from experiments.records import FAILED, read
from experiments.states import name_of

REASONS = {"running": "is running", "stopped": "was interrupted", "waiting": "has not run"}


def note(jobs: list[Job], places: Sequence[Path]) -> str:
    """How many jobs are done in none of the work directories, and a line for each row, verb and reason among them.

    Empty where all are done.
    """
    undone = [job for job in jobs if not any(job.done(place) for place in places)]
    found: dict[tuple[str, str, str], list[int]] = {}
    for job in undone:
        found.setdefault((job.row, job.verb, reason(job, places)), []).append(job.seed)
    lines = [
        f"- {row}: {verb}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}: {why}"
        for (row, verb, why), seeds in found.items()
    ]
    if not lines:
        return ""
    return "\n".join([f"Partial table: {len(undone)} of {len(jobs)} jobs are not done. Missing:", "", *lines])


def reason(job: Job, places: Sequence[Path]) -> str:
    """Why a job is not done, from the first work directory that knows."""
    names = {place: name_of(job, place) for place in places}
    for place, name in names.items():
        if name == "failed":
            return f"failed: {read(job.folder(place) / FAILED).get('error', 'no reason was recorded')}"
    return REASONS[next((name for name in names.values() if name != "waiting"), "waiting")]
