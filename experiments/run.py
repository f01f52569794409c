"""The verb `run`: every job of a table that is not done yet, then the table; and single rows for the other verbs."""

import json
import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import ModuleType

import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from diffusion.data import stored_tokenizers
from diffusion.report.rows import commit, read_rows
from diffusion.report.tables import Column
from diffusion.storage import atomic_write
from diffusion.train.weights import check_weights
from experiments import (
    compiled,
    evaluate,
    locks,
    machines,
    population,
    records,
    redo,
    reproduced,
    results,
    sample,
    table,
    trace,
    train,
)
from experiments.checks import check_plan, check_training
from experiments.families import family_of
from experiments.geneval import job as geneval
from experiments.hosts import check_hosts, check_shared
from experiments.layout import check_layout, write_layout
from experiments.plan import Job, check_seeds, find_row, plan, resolve, trains, without
from experiments.published import check_recorded
from experiments.run_context import Run, build
from experiments.settings import check_keys

VERBS = {"train": train, "evaluate": evaluate, "sample": sample, "geneval": geneval}


def prepare(job: Job, workdir: Path, profile: int = 0) -> Run:
    """Build what a job uses, short of arrays, and check it; a training traces `profile` of its steps.

    Raises:
      ValueError: naming the first field that is wrong, before anything was computed or written.
    """
    run = replace(build(job, workdir), profile=profile)
    check_training(run.config, run.system)
    VERBS[job.verb].check(run)
    if run.config.checkpoint:
        check_weights(Path(run.config.checkpoint))
        check_recorded(run.config)
    return run


def execute(run: Run, *others: Run) -> list[dict]:
    """Run a prepared job, or several trainings as one program; returns their rows.

    Raises:
      ValueError: as `check_needs` does.
    """
    runs = [run, *others]
    for each in runs:
        check_needs(each.job, each.workdir)
        if jax.process_index() == 0:
            atomic_write(each.folder / "config.json", json.dumps(each.job.config, indent=1) + "\n")
    with ExitStack() as stack:
        for each in runs:
            stack.enter_context(records.kept(each.job, each.folder))
        found = train.execute_together(runs) if others else [VERBS[run.job.verb].execute(run)]
    return [written(each, result) for each, result in zip(runs, found, strict=True)]


def written(run: Run, result: dict) -> dict:
    """The result row of a job, which it writes; the job is then done."""
    job = run.job
    row = {"job": job.id, "verb": job.verb, "row": job.row, "seed": job.seed, "config": job.config, **result}
    row |= {"contents": job.contents} if job.contents else {}
    if jax.process_index() == 0:
        results.write_result(run.folder, row)
    if jax.process_count() > 1:
        # No process looks for this result before it is written.
        multihost_utils.sync_global_devices(job.id)
    return row


def check_tokenizers(run: Run, others: dict[str, Run]) -> None:
    """Raise ValueError where weights that a job needs read other ids: those of `others`, or those that are stored."""
    text = run.dataset.domain in ("text", "pairs")  # scorers of other samples may read them in another form
    for role, need in run.job.needs.items():
        folder = run.workdir / "jobs" / need
        record = others[need].tokenizer if need in others else stored_tokenizers.read(folder)
        if (role != "scorer" or text) and record and not stored_tokenizers.agree(record, run.tokenizer):
            raise ValueError(
                f"data.tokenizer: {run.job.row!r} reads another vocabulary than its {role}, {folder}; pass "
                + ("--config.judge.name=none" if role == "scorer" else "the data of that time, or another --workdir")
            )


def check_needs(job: Job, workdir: Path) -> None:
    """Raise ValueError when a job that this one needs is not done."""
    for need in job.needs.values():
        if not (workdir / "jobs" / need / "result.json").exists():
            raise ValueError(f"jobs: {job.id} needs {need}, which is not done; run that job first")


def run_jobs(
    jobs: list[Job], workdir: Path, again: list[str] | None = None, profile: int = 0, most: int = 1
) -> list[dict]:
    """Run jobs in order, saying which; those that are done are only read, and named where the code was another one.

    The jobs of the rows `again`, and those that need them, are run although they are done. Trainings trace `profile`
    of their steps. Up to `most` trainings of one program run at a time.

    Raises:
      ValueError: when the config of any of them is wrong, before the first one runs.
    """
    population.check(most)
    check_hosts(jobs)
    check_shared(workdir)
    check_layout(workdir)
    repeated = redo.select(jobs, again or [])
    wanted = [job for job in jobs if job in repeated or not job.done(workdir)]
    if profile and not any(job.verb == "train" for job in wanted):
        raise ValueError("--profile: every training is done; run one again (`run --redo=ROW`), or leave it out")
    check_plan(wanted, jobs)
    runs = {job.id: prepare(job, workdir, profile) for job in wanted}
    for each in runs.values():
        check_tokenizers(each, runs)
    # A damaged result ends the command before another job begins.
    before = {job.id: results.read_result(job.folder(workdir)) for job in jobs if job not in wanted}
    redo.move_aside(repeated, workdir)
    if jax.process_index() == 0:
        write_layout(workdir)
    rows, together, here = [], [], commit()
    for number, job in enumerate(jobs, 1):
        if most > 1 and job.id in runs:
            together += population.train_together(job, runs, most, execute)
        with locks.held(job, workdir) as done:
            result = (before.get(job.id) or results.read_result(job.folder(workdir))) if done else {}
            state, other = "done before" if done else "running", ""
            state = "done with others" if job.id in together else state
            if done and result.get("commit", here) != here:
                other = f", at commit {result['commit']}, not {here}; `run --redo={job.row!r}` does it again"
            place = f"[{number}/{len(jobs)}] {job.verb} {job.row!r}, seed {job.seed}"
            print(f"{place}: {state} ({job.id}{other})", file=sys.stderr)
            result = result if done else execute(runs.pop(job.id))[0]
        # Rows of two tables may share a job; the row is named by the table that asks.
        rows.append(result | {"row": job.row})
    if most > 1 and wanted and not together:
        print("--population: no two trainings were of one program; jobs ran one by one", file=sys.stderr)
    return rows


def run_plan(jobs: list[Job], workdir: Path, again: list[str] | None = None, profile: int = 0, most: int = 1) -> None:
    """Run the jobs of a plan, and print how many programs were compiled or read from the cache of all jobs."""
    with compiled.counted() as programs:
        run_jobs(jobs, workdir, again, profile, most)
    if jax.process_index() == 0:
        print(f"jobs: {len(jobs)}; {programs}", file=sys.stderr)


def run_table(
    module: ModuleType,
    config: ConfigDict,
    workdir: Path,
    publish: bool,
    again: list[str] | None = None,
    profile: int = 0,
    most: int = 1,
) -> None:
    """All jobs of a table, then the table, its plots and samples, and whether the committed figures are reproduced.

    Jobs of the rows `again` are run although they are done. Trainings trace `profile` of their steps. Up to `most`
    trainings of one program run at a time. After a sweep the number of compiled programs is printed.
    """
    check_keys(module, config)
    jobs = plan(list(module.rows(config)), config)
    with compiled.counted() as programs:
        rows = run_jobs(jobs, workdir, again, profile, most)
    results.check_rows(rows)
    if jax.process_index() == 0:
        if "axes" in module.TABLE:
            print(f"jobs: {len(jobs)}; {programs}", file=sys.stderr)
        source = table.PUBLISHED / "results" / f"{config.table}.{config.variant}.jsonl"
        committed = read_rows(source)
        table.write(module, config, rows, workdir, publish)
        columns = [Column(*column) for column in module.TABLE["columns"]]
        print(reproduced.report(columns, rows, committed, machines.read(source.stem), os.path.relpath(source)))


def run_row(
    module: ModuleType,
    config: ConfigDict,
    verb: str,
    name: str,
    overrides: dict,
    workdir: Path,
    traced: bool = False,
    profile: int = 0,
) -> None:
    """One verb for one row; fields given on the command line win over the row's.

    A checkpoint is what `train` starts from, and what `evaluate` and `sample` use as it is. With `traced`, samples get
    a page that plays their steps. Training traces `profile` of its steps.
    """
    check_seeds(config)
    rows = list(module.rows(config))
    overridden = [row | {"overrides": without(row["overrides"], overrides)} for row in rows]
    row = find_row(overridden, name or first_row(overridden, config, verb))
    check_verb(overridden, config, verb, row)
    settings = row["overrides"]
    if config.checkpoint and verb != "train":
        settings["start"] = ""
    wanted = [dict(name=row["name"], overrides=settings, verbs=(verb,))]
    config.seeds = config.seeds[:1]
    jobs = plan(wanted, config, rows)
    job = next(job for job in jobs if job.verb == verb and job.row == row["name"])
    if traced:
        trace.check(ConfigDict(job.config))
    done = job.done(workdir)
    report = next(result for result in run_jobs(jobs, workdir, profile=profile) if result["job"] == job.id)
    if jax.process_index() == 0:
        print(table.describe(report, workdir))
    if traced:
        write_trace(job, workdir, done)


def write_trace(job: Job, workdir: Path, done: bool) -> None:
    """The page of a job's steps, for which its first samples are drawn again; one that was `done` is not run again."""
    weights = job.needs.get("weights") or job.config["checkpoint"]
    origin = f" from the weights of {weights}" if weights else ""
    only = "; the job is done, and the trace alone is made" if done else ""
    print(f"trace: the first samples are drawn again{origin}{only}", file=sys.stderr)
    path = trace.write(prepare(job, workdir))
    if jax.process_index() == 0:
        print(f"wrote {path}")


def first_row(rows: list[dict], config: ConfigDict, verb: str) -> str:
    """The name of the first row that has something to do for this verb.

    Raises:
      ValueError: when there is none.
    """
    for row in rows:
        if verb in row["verbs"] or (verb == "train" and trains(resolve(config, row["overrides"], config.seeds[0]))):
            return row["name"]
    raise ValueError(f"row: no row of this table has something to {verb}")


def check_verb(rows: list[dict], config: ConfigDict, verb: str, row: dict) -> None:
    """Raise ValueError for a row without a network that is to be trained, or evaluated without a checkpoint."""
    resolved = resolve(config, row["overrides"], config.seeds[0])
    exact = not family_of(resolved).TRAINED
    if verb == "sample" or trains(resolved) or (verb == "evaluate" and resolved.checkpoint and not exact):
        return
    kind = f"an exact model (model.net={resolved.model.net})" if exact else "held-out data (sample.policy=data)"
    others = (each for each in rows if trains(resolve(config, each["overrides"], config.seeds[0])))
    names = [repr(each["name"]) for each in islice(others, 3)]
    remedy = f"rows with a network are {', '.join(names)}" if names else "no row here has a network; use sample"
    raise ValueError(f"row: {row['name']!r} is {kind} with nothing to {verb}; {remedy}")
