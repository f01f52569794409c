"""Strict numerics for every test: no key is used twice, and no array is broadcast by accident."""

import ctypes
import gc
import os
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is downloaded
# Eight simulated devices let the sharding laws run anywhere. Tests are compile time, of which optimization is half and
# the fusion emitters, which later versions always use, a quarter; numbers agree with those of usual programs to 3e-7.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["XLA_FLAGS"] += "" if os.environ.get("OPTIMIZED") else " --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] += (
    " --xla_cpu_use_fusion_emitters=false"
    if version("jaxlib").startswith("0.10.") and not os.environ.get("OPTIMIZED")
    else ""
)

# Equal programs are compiled once, also between workers, processes, runs and clones.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffusion-tests"),
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
from jaxtyping import install_import_hook

import tests.typechecker

# Shapes and types of every annotated function are checked where it is called.
install_import_hook(["diffusion", "experiments"], f"{tests.typechecker.__name__}.check")

# Tracing makes millions of objects, and a third of its time would be the collector's, which finds next to nothing.
gc.disable()
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Tests in which no type is promoted; elsewhere integers and weak types still meet floats.
STRICT = {"processes", "test_attention", "codecs", "test_draw", "schedules", "test_layers"}
STRICT |= {"test_rng", "test_solvers"}
LARGE = 3e9  # bytes; a worker is to stay under four gigabytes


def resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


@pytest.fixture(autouse=True)
def drop_compiled_programs():
    """Once a worker is large, drop its compiled programs and collect garbage; the cache has what is needed again."""
    yield
    if resident() > LARGE:
        jax.clear_caches()
        gc.collect()
        # The GNU C library keeps freed memory until it is asked to return it.
        getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: 0)(0)


@pytest.fixture(autouse=True)
def strict_promotion(request):
    """Raise where two arrays of different types meet, in the tests named in STRICT."""
    strict = STRICT & {request.path.stem, request.path.parent.name}
    with jax.numpy_dtype_promotion("strict") if strict else nullcontext():
        yield


def pytest_addoption(parser):
    """`--update-golden` records the numbers of `tests/golden` again."""
    parser.addoption("--update-golden", action="store_true", help="record the numbers of tests/golden again")


def pytest_configure(config):
    """Workers would overwrite each other's records, and some tests of a file those of its others."""
    if config.getoption("update_golden") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--update-golden: writes files from one process; leave -n out")
    if config.getoption("update_golden") and config.getoption("keyword", None):
        raise pytest.UsageError("--update-golden: keeps the records of the tests that run; leave -k out")
