"""Plans as JSON lines, a job each, which a cluster runs by their numbers."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

from experiments.plan import Job, check_table
from experiments.stored import without_deleted

VERBS = ("train", "evaluate", "sample", "geneval")
ID = re.compile(r"[a-z0-9][a-z0-9-]*")  # it names a folder


def write_plan(jobs: list[Job]) -> str:
    """Jobs as JSON lines."""
    return "".join(json.dumps(asdict(job)) + "\n" for job in jobs)


def job_of(fields: dict) -> Job:
    """The job of a line of a plan.

    Raises:
      KeyError, TypeError, AttributeError, ValueError: for what is no job, such as one of an earlier version.
    """
    job = Job(**fields)
    check_table(job.config["table"])
    texts = (job.id, job.row, job.config["variant"], *job.needs.values(), *job.contents.values())
    numbers = (job.seed, job.config.get("cpu_devices", 1))
    wrong = [each for each in texts if type(each) is not str] + [each for each in numbers if type(each) is not int]
    if wrong or job.verb not in VERBS or not all(ID.fullmatch(each) for each in (job.id, *job.needs.values())):
        raise TypeError(job.id)
    return replace(job, config=without_deleted(job.config))


def read_plan(path: Path, index: int | None = None) -> list[Job]:
    """All jobs of a file of JSON lines, or the job with this index.

    Raises:
      ValueError: for a missing file, a line that is not a job, or an index out of range.
    """
    if not path.is_file():
        raise ValueError(f"jobs: {path} is not a file; write it with `launch.py plan --config=... > {path}`")
    jobs = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"jobs: {path} is not text; write it with `launch.py plan`") from None
    for number, line in enumerate(lines, 1):
        try:
            jobs.append(job_of(json.loads(line)))
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"jobs: line {number} of {path} is not a job; write it with `launch.py plan`") from error
        except ValueError as error:
            raise ValueError(f"jobs: line {number} of {path}: {error}") from None
    if not jobs:
        raise ValueError(f"jobs: {path} is empty; write it with `launch.py plan --config=... > {path}`")
    if index is None:
        return jobs
    if not 0 <= index < len(jobs):
        raise ValueError(f"index: {index} is not among the {len(jobs)} jobs of {path}, 0 to {len(jobs) - 1}")
    return [jobs[index]]
