"""The backend `local`: several processes on this machine, which find each other on loopback."""

import shlex
import socket

from experiments.pods.request import Request, run_command, script


def commands(request: Request) -> str:
    """A script that starts the processes and ends with the first one that fails, and then ends the others."""
    logs = shlex.quote(str(request.logs))
    address = f"127.0.0.1:{free_port()}"
    lines = [f"mkdir -p {logs}", "processes=()"]
    for index in range(request.hosts):
        words = (f"--coordinator={address}", f"--processes={request.hosts}", f"--process={index}")
        command = run_command(request, request.python, *(words if request.hosts > 1 else ()))
        log = f'{logs}/"$HOSTNAME-{index}.log"'
        # The first process prints the table, and shows progress.
        output = f"> >(tee -a {log}) 2>&1" if index == 0 else f">> {log} 2>&1"
        lines += [f"{command} {output} &", 'processes+=("$!")']
    lines += [
        "trap 'kill \"${processes[@]}\" 2>/dev/null || true; wait' EXIT",
        "trap 'exit 143' TERM INT",
        'for process in "${processes[@]}"; do wait -n; done',
    ]
    return script(f"{request.name}: {request.hosts} processes on this machine.", request, *lines)


def free_port() -> int:
    """A port of this machine that no process uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
