"""The backend `xpk`: one workload on a Cloud TPU slice of a Kubernetes cluster."""

import re
import shlex

from experiments.pods.request import Request, script, worker

RESTARTS = 20
LONGEST = 40  # characters of the name of a workload
NAMES = {"v5e": "v5litepod"}  # Cloud TPU's names of chips, where they are not those of JAX


def commands(request: Request) -> str:
    """A script that creates the workload and returns; Kubernetes restarts it after a preemption."""
    words = [
        *("xpk", "workload", "create", f"--cluster={request.cluster}", f"--workload={workload(request.name)}"),
        *(f"--tpu-type={tpu_type(request.topology)}", *request.location),
        *(f"--max-restarts={RESTARTS}", "--restart-on-user-code-failure", "--termination-grace-period-seconds=120"),
        *request.options,
        f"--command={worker(request)}",
    ]
    return script(f"{request.name} on the cluster {request.cluster}.", request, shlex.join(words))


def workload(name: str) -> str:
    """The name with letters, digits and hyphens only."""
    return re.sub("[^a-z0-9]+", "-", name.lower())[:LONGEST].strip("-")


def tpu_type(topology: str) -> str:
    """Cloud TPU's name of a slice such as v5e-16; raises ValueError for another form."""
    match = re.fullmatch(r"(v\d+[a-z]*)-(\d+)", topology)
    if not match:
        raise ValueError(f"--topology: {topology!r} is not a type of TPU slice; pass one such as v5e-16 or v6e-8")
    return f"{NAMES.get(match[1], match[1])}-{match[2]}"
