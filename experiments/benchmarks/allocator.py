"""Settings of the allocator of the C library, by which it keeps freed memory."""

import ctypes

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8  # from malloc.h of glibc


def keep_freed_memory() -> bool:
    """Make malloc reuse large blocks instead of returning them to the system; returns whether this succeeded.

    XLA on CPU allocates its temporary buffers again in every call, and glibc returns blocks of this size when they are
    freed; page faults then take two thirds of a training step of a small model. Call this before the first thread
    starts. The process keeps its peak size, also where it exceeds 2 GiB (a threshold of -1, which no size reaches).
    Without glibc the call has no effect.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (ARENA_MAX, 1))
    return all(mallopt(name, value) == 1 for name, value in settings)
