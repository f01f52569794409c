"""Stand-ins for sbatch, srun, scancel, scontrol, gcloud, tmux and xpk, whose hosts are processes of this machine.

    python stand_ins.py PROGRAM ARGUMENTS

Each writes its arguments to STAND_INS/calls as a line of JSON. The processes find each other by the variables of Slurm,
because those of a TPU need one.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

HOSTS = 2  # of a slice
FOLDER = Path(os.environ.get("STAND_INS", "."))


def install(folder: Path) -> dict[str, str]:
    """Write the programs to a folder, and return the environment in which they are found."""
    for name in PROGRAMS:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n')
        program.chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "STAND_INS": str(folder)}


def calls(folder: Path) -> list[list[str]]:
    """The calls of the programs so far, each with its arguments."""
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def options(words: list[str]) -> dict[str, str]:
    """The options of a command line, without their hyphens."""
    return dict((word[2:].partition("=")[::2]) for word in words if word.startswith("--"))


def sbatch(*words: str) -> None:
    """Runs the tasks of an array at once, and records their exit statuses; a job whose dependency failed does not run.

    Slurm queues jobs, but here those before have ended when the next one is submitted.
    """
    number = 100 + sum(call[0] == "sbatch" for call in calls(FOLDER))
    script = words[-1]
    directives = [line.split()[1] for line in Path(script).read_text().splitlines() if line.startswith("#SBATCH")]
    given = options(directives) | options(list(words))
    statuses = json.loads((FOLDER / "statuses").read_text()) if (FOLDER / "statuses").exists() else {}
    kind, *needed = given.get("dependency", "afterany").split(":")
    failed = [need for need in needed for key, status in statuses.items() if key.startswith(need) and status]
    assert all(any(key.startswith(need) for key in statuses) for need in needed), "no such job"
    for index in given.get("array", "0").split(","):
        variables = {
            "SLURM_ARRAY_JOB_ID": number,
            "SLURM_ARRAY_TASK_ID": index,
            "SLURM_JOB_ID": 10 * number + int(index),
        }
        variables |= {"SLURM_JOB_NAME": given["job-name"], "SLURM_NNODES": given.get("nodes", 1)}
        output = given["output"].replace("%x", given["job-name"]).replace("%a", index)
        environment = os.environ | {key: str(value) for key, value in variables.items()}
        with open(output, "a") as log:
            skipped = kind == "afterok" and failed
            run = ["bash", script] if not skipped else ["false"]
            status = subprocess.run(run, env=environment, stdout=log, stderr=log).returncode
        statuses[f"{number}_{index}"] = status
    (FOLDER / "statuses").write_text(json.dumps(statuses))
    if "parsable" in given:
        print(number)


def srun(*words: str) -> None:
    """Runs a command on every node, with a log for each."""
    given = options([word for word in words if word.startswith(("--output", "--open-mode"))])
    command = list(words[len(given) :])
    (FOLDER / "srun.pid").write_text(str(os.getpid()))
    logs = [given["output"].replace("%N", f"node{rank}").replace("%t", str(rank)) for rank in range(nodes())]
    run_hosts(command, nodes(), "node", logs)


def nodes() -> int:
    """Number of nodes of the allocation."""
    return int(os.environ["SLURM_NNODES"])


def scancel(*words: str) -> None:
    """Sends a signal to the processes of the job step that runs."""
    assert options(list(words))["signal"] == "TERM"
    os.kill(int((FOLDER / "srun.pid").read_text()), signal.SIGTERM)


def scontrol(*words: str) -> None:
    """Only records its call."""


def gcloud(*words: str) -> None:
    """Runs a command on all hosts of a TPU VM."""
    given = options(list(words))
    assert words[:4] == ("compute", "tpus", "tpu-vm", "ssh") and given["worker"] == "all"
    run_hosts(["bash", "-c", given["command"]], HOSTS, words[4])


def tmux(*words: str) -> None:
    """Runs the command of a session, and waits for it."""
    assert words[:3] == ("new-session", "-d", "-s") and len(words) == 5
    sys.exit(subprocess.run(["sh", "-c", words[4]]).returncode)


def xpk(*words: str) -> None:
    """Runs a workload as XPK does, in a shell of bash for each host."""
    given = options(list(words))
    assert words[:2] == ("workload", "create") and given["workload"] and given["tpu-type"]
    run_hosts(["bash", "-c", f"({given['command']}) & wait $!"], HOSTS, given["workload"])


def run_hosts(command: list[str], count: int, name: str, logs: list[str] | None = None) -> None:
    """Runs a command once for each host, passes SIGTERM to all of them, and exits with the highest status."""
    processes = []
    for rank in range(count):
        variables = {"SLURM_NTASKS": count, "SLURM_PROCID": rank, "SLURM_LOCALID": 0, "HOSTNAME": f"{name}{rank}"}
        variables |= {"SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_JOB_ID": os.environ.get("SLURM_JOB_ID", os.getpid())}
        environment = os.environ | {key: str(value) for key, value in variables.items()}
        log = open(logs[rank], "a") if logs else None
        processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    signal.signal(signal.SIGTERM, lambda number, frame: [each.send_signal(number) for each in processes])
    sys.exit(max(each.wait() % 256 for each in processes))


PROGRAMS = {each.__name__: each for each in (sbatch, srun, scancel, scontrol, gcloud, tmux, xpk)}

if __name__ == "__main__":
    with (FOLDER / "calls").open("a") as file:
        file.write(json.dumps(sys.argv[1:]) + "\n")
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
