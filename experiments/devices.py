"""Devices and processes of a command, set up before any device is touched."""

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator

import jax

MOST_DEVICES = 256  # that a CPU is split into
PATIENCE = 300  # seconds to wait for the other processes
LOST = ("closed by peer", "reset by peer", "Gloo", "heartbeat")  # in errors after a process was lost


def split_cpu(count: int) -> None:
    """Let a CPU be `count` devices, unless XLA_FLAGS say how many; before any device is touched."""
    if not 1 <= count <= MOST_DEVICES:
        raise ValueError(f"cpu_devices: must lie in 1 .. {MOST_DEVICES}, not {count}; pass the number of cores")
    flag, known = "--xla_force_host_platform_device_count", os.environ.get("XLA_FLAGS", "")
    if count > 1 and flag not in known:
        os.environ["XLA_FLAGS"] = f"{known} {flag}={count}".strip()


def start_processes(
    coordinator: str, processes: int | None, process: int | None, distributed: bool, patience: int = PATIENCE
) -> None:
    """Join the other processes of a cluster, or those named on the command line, before any device is touched.

    A process whose partners do not come in `patience` seconds ends with one line and status 2.

    Raises:
      ValueError: for flags that do not go together, or where JAX_PLATFORMS names devices that are not here.
    """
    check_processes(coordinator, processes, process)
    later = patience + 60  # JAX's own limit, at which it aborts the process
    if coordinator:
        print(f"process {process} of {processes}: waiting for the others at {coordinator}", file=sys.stderr)
        problem = f"--coordinator: not all of {processes} processes came to {coordinator}"
        with ended_after(
            patience, f"{problem} in {patience} s; start each of them, with an address that all can reach"
        ):
            jax.distributed.initialize(coordinator, processes, process, initialization_timeout=later)
    elif distributed or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        problem = "--distributed: not all processes of the cluster came"
        with ended_after(patience, f"{problem} in {patience} s; see their logs, and start the job again"):
            jax.distributed.initialize(initialization_timeout=later)
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), "JAX is not installed for it")
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise ValueError(f"JAX_PLATFORMS: no device of {platforms or 'any platform'} ({reason}); unset it") from None


def lost(error: Exception) -> str:
    """What an error of a run of several processes says of one that has ended; empty for other errors."""
    text = " ".join(str(error).split())
    # JAX raises a RuntimeError of its own, or a ValueError, with a status before the message.
    if not re.match(r"[A-Z]{2}[A-Z_]*: ", text) or not any(each in text for each in LOST):
        return ""
    return f"another process has ended ({text[:120]}); see its log, and give the command to all of them again"


def check_processes(coordinator: str, processes: int | None, process: int | None) -> None:
    """Raise ValueError unless a coordinator has a port, and its processes a number and an index."""
    for flag, number in (("processes", processes), ("process", process)):
        if (number is None) == bool(coordinator):
            remedy = "leave it out, or pass --coordinator=HOST:PORT" if number is not None else "--coordinator needs it"
            raise ValueError(f"--{flag}: {'missing' if number is None else number}; {remedy}")
    if processes is None or process is None:
        return
    if not coordinator.rpartition(":")[0] or not coordinator.rpartition(":")[2].isdecimal():
        raise ValueError(f"--coordinator: {coordinator!r} is not HOST:PORT; pass the address of process 0")
    if not 0 <= process < processes:
        raise ValueError(f"--process: {process} is not among --processes={processes}; pass 0 to {processes - 1}")


@contextlib.contextmanager
def ended_after(seconds: float, problem: str) -> Iterator[None]:
    """End the process with one line and status 2 where the context lasts longer than `seconds`.

    JAX waits in C++, which neither an exception nor a signal handler of Python interrupts.
    """

    def end() -> None:
        print(f"launch.py: {problem}", file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
