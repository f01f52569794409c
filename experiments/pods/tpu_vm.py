"""The backend `tpu-vm`: one process on each host of a Cloud TPU slice, in a session of tmux."""

import shlex

from experiments.pods.request import Request, script, worker

ATTEMPTS, PAUSE = 20, 30  # of starting a process that failed, with seconds between


def commands(request: Request) -> str:
    """A script that starts the table on all hosts of the slice and returns.

    A host whose process fails, such as by the loss of another host, starts it again. Bad input (status 2) ends it.
    """
    loop = (
        f"for attempt in {{1..{ATTEMPTS}}}; do ({worker(request)}); case $? in 0|2) break;; esac; sleep {PAUSE}; done"
    )
    session = request.name.replace(".", "-")  # tmux does not accept dots
    start = shlex.join(["tmux", "new-session", "-d", "-s", session, shlex.join(["bash", "-c", loop])])
    ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", request.tpu_name, *request.location, *request.options]
    return script(
        f"{request.name} on the TPU VM {request.tpu_name}. Give the command again when the slice was created again.",
        request,
        shlex.join([*ssh, "--worker=all", f"--command={start}"]),
        f"# progress: {shlex.join([*ssh, '--worker=0', f'--command=tmux attach -t {session}'])}",
    )
