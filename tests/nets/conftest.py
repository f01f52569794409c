"""The programs of these tests are small and run once, so that compilation is most of their cost."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def little_optimization():
    """Compile without most optimizations, in about half of the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
