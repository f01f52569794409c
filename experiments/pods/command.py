"""The verb `pods`: prints the script that runs a table on a backend, or runs it."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from ml_collections import ConfigDict

from diffusion.storage import atomic_write
from experiments.checks import check_plan
from experiments.identity import digest
from experiments.layout import check_layout
from experiments.plan import plan
from experiments.pods import local, slurm, tpu_vm, xpk
from experiments.pods.request import Request


@dataclass(frozen=True)
class Backend:
    """A place where tables run.

    Args:
      commands: returns the script.
      program: what the script calls.
      needed: fields of a request that must be given.
      optional: further fields that it uses.
      remote: whether the hosts do not share the files of this machine.
    """

    commands: Callable[[Request], str]
    program: str
    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    remote: bool = False


MOST_HOSTS = 9999
BACKENDS = {
    "local": Backend(local.commands, "bash", optional=("hosts",)),
    "slurm": Backend(slurm.commands, "sbatch", optional=("hosts", "setup", "options")),
    "tpu-vm": Backend(tpu_vm.commands, "gcloud", ("tpu_name",), ("zone", "project", "setup", "options"), True),
    "xpk": Backend(xpk.commands, "xpk", ("cluster", "topology"), ("zone", "project", "setup", "options"), True),
}


def run(
    module: ModuleType,
    config: ConfigDict,
    file: str,
    overrides: dict[str, Any],
    workdir: Path,
    backend: str,
    go: bool,
    **given: Any,
) -> None:
    """Print the script of a table, or with `go` write it to the work directory and run it in place of this process.

    Args:
      file: the config file and its variant, FILE:VARIANT.
      overrides: the fields of the command line.
      given: values of the flags that backends use, by the names of their fields in a request; None or "" if not given.

    Raises:
      ValueError: for a backend, a flag or a config that is wrong, before anything is written.
    """
    place = checked(backend, given, workdir)
    jax.config.update("jax_platforms", "cpu")  # the checks leave the accelerators alone
    jobs = plan(list(module.rows(config)), config)
    check_plan(jobs)
    check_layout(workdir)
    name = f"{config.table}.{config.variant}-{digest([job.id for job in jobs])[:6]}"
    words = (f"--config={file}", *(f"--config.{field}={value}" for field, value in overrides.items()))
    fields = {flag: value for flag, value in given.items() if value}
    fields["options"] = split(given.get("options") or "")
    request = Request(name, tuple(jobs), words, workdir, Path.cwd(), (sys.executable, sys.argv[0]), **fields)
    text = place.commands(request)
    if not go:
        print(text, end="")
        return
    if not shutil.which(place.program):
        raise ValueError(
            f"--go: {place.program} is not installed here; omit --go, and run the printed script where it is"
        )
    path = request.folder / f"{backend}.sh"
    atomic_write(path, text)
    print(f"running {path}; logs are in {request.logs}", flush=True)
    # The script takes the place of this process, and receives its signals.
    os.execvp("bash", ["bash", str(path)])


def split(options: str) -> tuple[str, ...]:
    """The words of further options; raises ValueError for a quotation without an end."""
    try:
        return tuple(shlex.split(options))
    except ValueError as error:
        raise ValueError(f"--options: {error} in {options!r}; close it") from None


def checked(name: str, given: dict[str, Any], workdir: Path) -> Backend:
    """The backend called `name`; raises ValueError if it is unknown, or for flags that it lacks or does not use."""
    if name not in BACKENDS:
        raise ValueError(f"--backend: {name or 'missing'}; pass one of {', '.join(BACKENDS)}")
    backend = BACKENDS[name]
    for flag, value in given.items():
        if flag in backend.needed and not value:
            raise ValueError(f"--{flag}: missing; --backend={name} needs it")
        if value and flag not in (*backend.needed, *backend.optional):
            users = [other for other, each in BACKENDS.items() if flag in (*each.needed, *each.optional)]
            raise ValueError(f"--{flag}: --backend={name} does not use it, only {', '.join(users)}; omit it")
    if given.get("hosts") is not None and not 1 <= given["hosts"] <= MOST_HOSTS:
        raise ValueError(f"--hosts: {given['hosts']} is not a number of processes; pass 1 or more, up to {MOST_HOSTS}")
    if backend.remote and not workdir.is_absolute():
        raise ValueError(
            f"--workdir: {workdir} is relative; pass a folder that is mounted on all hosts, such as /mnt/nfs/runs"
        )
    return backend
