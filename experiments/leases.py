"""Leases: locks of jobs in object stores, which have no locks.

A lease is an object with its owner and its end. It is made where there is none, which stores that know conditions do at
once, and renewed while the job runs. The lease of a command that was killed ends, and another one takes it over. The
clocks of the machines need to agree to a fraction of a minute.
"""

import contextlib
import json
import secrets
import sys
import threading
import time
from collections.abc import Iterator

from diffusion.storage import ObjectPath

SECONDS = 90.0  # how long a lease lasts without being renewed
SETTLE = 1.0  # of several commands that took a lease at once the last one to write has it


@contextlib.contextmanager
def leased(file: ObjectPath, name: str, seconds: float = SECONDS, settle: float = SETTLE) -> Iterator[None]:
    """Hold the lease of a job, after the command that has it.

    Args:
      file: the object.
      name: what is said to be waited for.
      seconds: how long the lease lasts without being renewed.
      settle: how long a lease must have stood to be ours.
    """
    owner, said = secrets.token_hex(8), False
    while not taken(file, owner, seconds, settle):
        if not said:
            print(f"{name}: another command is at it; waiting for that", file=sys.stderr)
            said = True
        time.sleep(min(seconds / 10, 5))
    stop = threading.Event()
    renewal = threading.Thread(target=renew, args=(file, name, owner, seconds, stop), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        stop.set()
        renewal.join()
        if read(file)[0] == owner:
            file.unlink(missing_ok=True)


def taken(file: ObjectPath, owner: str, seconds: float, settle: float) -> bool:
    """Take a lease that nobody has or that has ended; returns whether it is ours."""
    if not file.create(lease(owner, seconds)):
        if read(file)[1] > time.time():
            return False
        file.write_text(lease(owner, seconds))
    elif read(file)[0] != owner:
        return False
    time.sleep(settle)
    return read(file)[0] == owner


def renew(file: ObjectPath, name: str, owner: str, seconds: float, stop: threading.Event) -> None:
    """Renew a lease until `stop`; a store that does not answer is asked again."""
    while not stop.wait(seconds / 3):
        try:
            if read(file)[0] != owner:
                print(f"warning: {name}: another command took this job, as if this one had stopped", file=sys.stderr)
                return
            file.write_text(lease(owner, seconds))
        except Exception as error:  # each client has errors of its own
            print(f"warning: {name}: its lease was not renewed ({type(error).__name__})", file=sys.stderr)


def lease(owner: str, seconds: float) -> str:
    """The text of a lease that begins now."""
    return json.dumps({"owner": owner, "end": time.time() + seconds})


def read(file: ObjectPath) -> tuple[str, float]:
    """Owner and end of a lease; nobody's, and ended, where there is none or none that can be read."""
    try:
        found = json.loads(file.read_text())
        return str(found["owner"]), float(found["end"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return "", 0.0
