"""Requests: a table, and where it is to run; and the shell commands that all backends share."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from experiments.plan import Job


@dataclass(frozen=True)
class Request:
    """A table to run on a backend.

    Args:
      name: of the script, the logs and the jobs; it contains a hash of the plan.
      jobs: the plan of the table.
      config: words of the command line that give the config file and its fields.
      workdir: the work directory, as the hosts see it.
      directory: the current directory, to which relative paths refer.
      python: how this process was started, the interpreter and launch.py.
      hosts: number of processes for each job (local, slurm).
      topology: type of a TPU slice (xpk).
      tpu_name: name of a TPU VM (tpu-vm).
      setup: shell commands that every host runs first.
      options: further words for sbatch, gcloud or xpk.
    """

    name: str
    jobs: tuple[Job, ...]
    config: tuple[str, ...]
    workdir: Path
    directory: Path
    python: tuple[str, ...]
    hosts: int = 1
    topology: str = ""
    tpu_name: str = ""
    zone: str = ""
    project: str = ""
    cluster: str = ""
    setup: str = ""
    options: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Folder of the scripts."""
        return self.workdir / "pods" / self.name

    @property
    def logs(self) -> Path:
        """Folder of the logs, one file for each process: HOST-PROCESS.log."""
        return self.workdir / "logs"

    @property
    def location(self) -> tuple[str, ...]:
        """Words of gcloud and xpk that say where the TPU is."""
        named = {"--zone": self.zone, "--project": self.project}
        return tuple(f"{flag}={value}" for flag, value in named.items() if value)


def script(comment: str, request: Request, *lines: str) -> str:
    """A script of bash that stops at the first error and runs in the current directory."""
    start = f"cd {shlex.quote(str(request.directory))}"
    return "\n".join(("#!/bin/bash", f"# {comment}", "set -euo pipefail", start, *lines)) + "\n"


def run_command(request: Request, python: tuple[str, ...], *words: str) -> str:
    """The command that runs the whole table, and goes on where it stopped when it is given again."""
    return shlex.join([*python, "run", *request.config, f"--workdir={request.workdir}", *words])


def worker(request: Request) -> str:
    """What each host of a TPU slice runs, in one line: the setup, then the table, with a log of its own.

    Cloud TPU names its hosts by HOSTNAME, and Kubernetes numbers them by TPU_WORKER_ID. The process replaces the shell,
    so that it receives the signals that announce a preemption.
    """
    logs = shlex.quote(str(request.logs))
    log = f'{logs}/"$HOSTNAME-${{TPU_WORKER_ID:-0}}.log"'
    command = run_command(request, ("python", "launch.py"), "--distributed")
    steps = (request.setup, f"mkdir -p {logs}", f"exec {command} > >(tee -a {log}) 2>&1")
    return " && ".join(step for step in steps if step)
