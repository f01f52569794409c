"""The backend `slurm`: arrays of jobs, each of which waits for the jobs that it needs, and then the table."""

import shlex

from experiments.plan import Job
from experiments.pods.request import Request, script

# A batch script for one job of the plan, that of SLURM_ARRAY_TASK_ID. Slurm sends SIGTERM to this shell before the time
# limit (--signal=B:TERM). The shell passes it to the processes, which save and exit with 143, and puts the job back
# into the queue. scancel ends the processes without the shell, and thus does not put it back.
JOB = """\
#!/bin/bash
#SBATCH --nodes={hosts}
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
{setup}log={logs}/"$SLURM_JOB_NAME-$SLURM_ARRAY_TASK_ID"
mkdir -p "$log"
srun --open-mode=append --output="$log/%N-%t.log" {run} --index="$SLURM_ARRAY_TASK_ID" &
step=$!
limit=
trap 'limit=1; scancel --signal=TERM "$SLURM_JOB_ID"' TERM
status=0
wait "$step" || status=$?
if [ "$limit" ]; then
  status=0
  wait "$step" || status=$?
  if [ "$status" -eq 143 ]; then
    exec scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
  fi
fi
exit "$status"
"""
TABLE = """\
#!/bin/bash
{setup}{table}
"""


def commands(request: Request) -> str:
    """A script that writes the plan and the batch scripts, and submits one array for each set of needed jobs.

    Jobs that are done are not submitted. The table is made of the rows that are there when all jobs have ended.
    """
    waiting = {job.id: index for index, job in enumerate(request.jobs) if not job.done(request.workdir)}
    folder, logs = (shlex.quote(str(path)) for path in (request.folder, request.logs))
    setup = f"{request.setup}\n" if request.setup else ""
    jobs = f"{request.folder}/jobs.jsonl"
    distributed = ("--distributed",) if request.hosts > 1 else ()
    run = shlex.join([*request.python, "run", f"--jobs={jobs}", f"--workdir={request.workdir}", *distributed])
    table = shlex.join([*request.python, "table", *request.config, f"--workdir={request.workdir}"])
    plan = shlex.join([*request.python, "plan", *request.config])
    lines = [
        f"mkdir -p {folder} {logs}",
        # Tasks that wait in the queue read the plan when they start.
        f"{plan} > {folder}/jobs.jsonl.partial",
        f"mv {folder}/jobs.jsonl.partial {folder}/jobs.jsonl",
        f"cat > {folder}/job.sbatch <<'END'",
        JOB.format(hosts=request.hosts, setup=setup, logs=logs, run=run) + "END",
        f"cat > {folder}/table.sbatch <<'END'",
        TABLE.format(setup=setup, table=table) + "END",
    ]
    arrays: dict[str, str] = {}  # of each job that is submitted, the array element
    groups = grouped([job for job in request.jobs if job.id in waiting], waiting)
    for number, (needs, group) in enumerate(groups):
        lines.append(f"# {described(group)}")
        after = f"--dependency=afterok:{':'.join(arrays[need] for need in needs)}" if needs else ""
        name = f"{request.name}.{group[0].verb}"
        output = shlex.quote(f"{request.logs}/%x-%a.log")
        words = [
            f"sbatch --parsable --job-name={shlex.quote(name)} --output={output}",
            f"--array={','.join(str(waiting[job.id]) for job in group)}",
            *([f'"{after}" --kill-on-invalid-dep=yes'] if after else []),
            # Only training saves its state.
            *(["--signal=B:TERM@120"] if group[0].verb == "train" else []),
            *([shlex.join(request.options)] if request.options else []),
            f"{folder}/job.sbatch",
        ]
        lines.append(f"array{number}=$({' '.join(words)})")
        arrays |= {job.id: f"${{array{number}}}_{waiting[job.id]}" for job in group}
    ended = ":".join(f"$array{number}" for number in range(len(groups)))
    words = [
        f"sbatch --job-name={shlex.quote(f'{request.name}.table')}",
        f"--output={shlex.quote(f'{request.logs}/%x.log')}",
        *([f'"--dependency=afterany:{ended}"'] if groups else []),
        *([shlex.join(request.options)] if request.options else []),
        f"--nodes=1 --ntasks=1 --ntasks-per-node=1 {folder}/table.sbatch",
    ]
    lines += ["# The table of the rows that are there when all jobs have ended.", " ".join(words)]
    return script(f"{request.name} on Slurm: {len(waiting)} jobs that are not done.", request, *lines)


def grouped(jobs: list[Job], waiting: dict[str, int]) -> list[tuple[tuple[str, ...], list[Job]]]:
    """Jobs of the same verb that wait for the same jobs, in the order of the plan, with what they wait for."""
    groups: dict[tuple[str, tuple[str, ...]], list[Job]] = {}
    for job in jobs:
        needs = tuple(sorted({need for need in job.needs.values() if need in waiting}, key=waiting.__getitem__))
        groups.setdefault((job.verb, needs), []).append(job)
    return [(needs, group) for (_, needs), group in groups.items()]


def described(group: list[Job]) -> str:
    """The verb and the rows of jobs, in one line."""
    rows = list(dict.fromkeys(" ".join(job.row.split()) for job in group))
    return f"{group[0].verb}: {', '.join(rows[:3])}{f' and {len(rows) - 3} more' if len(rows) > 3 else ''}"
