"""Devices and processes of a command, set up before any device is touched."""

import os
import sys

import jax

PATIENCE = 120  # seconds to wait for the other processes


def split_cpu(count: int) -> None:
    """Let a CPU be `count` devices, unless XLA_FLAGS say how many; before any device is touched."""
    flag, known = "--xla_force_host_platform_device_count", os.environ.get("XLA_FLAGS", "")
    if count > 1 and flag not in known:
        os.environ["XLA_FLAGS"] = f"{known} {flag}={count}".strip()


def start_processes(
    coordinator: str, processes: int | None, process: int | None, distributed: bool, patience: int = PATIENCE
) -> None:
    """Join the other processes of a cluster, or those named on the command line, before any device is touched.

    Raises:
      ValueError: where JAX_PLATFORMS names devices that are not here, or another process does not come.
    """
    if coordinator:
        print(f"process {process} of {processes}: waiting for the others at {coordinator}", file=sys.stderr)
        try:
            jax.distributed.initialize(coordinator, processes, process, initialization_timeout=patience)
        except RuntimeError:
            raise ValueError(
                f"--coordinator: not all of {processes} processes came to {coordinator} in {patience} s; start each of "
                "them, with an address that all of them can reach"
            ) from None
    elif distributed or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        jax.distributed.initialize()
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), "JAX is not installed for it")
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise ValueError(f"JAX_PLATFORMS: no device of {platforms or 'any platform'} ({reason}); unset it") from None
