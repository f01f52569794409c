"""The C library's allocator, told to keep what is freed."""

import ctypes

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8  # names of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Makes malloc reuse large blocks instead of returning them to the system; whether that was possible.

    XLA on CPU allocates its temporary buffers anew at every call, and glibc gives blocks of that size back on each
    free, so that a training step of a small model spent two thirds of its time on page faults. Call it before the
    first thread starts. The process then stays at its peak size, which it reaches either way. Does nothing where the C
    library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (ARENA_MAX, 1))
    return all(mallopt(name, value) == 1 for name, value in settings)
