"""Strict numerics for every test: no key is used twice, and no array is broadcast by accident."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Eight simulated devices let the sharding laws run anywhere.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import pytest

# Tests are compile time: equal programs are compiled once, also between workers and runs.
CACHE = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(Path(__file__).parents[1] / ".pytest_cache" / "compiled")
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser):
    """`--update-golden` records the numbers of `tests/golden` anew."""
    parser.addoption("--update-golden", action="store_true", help="record the numbers of tests/golden anew")


def pytest_configure(config):
    """Workers would overwrite each other's records."""
    if config.getoption("update_golden") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--update-golden: writes files from one process; leave -n out")
