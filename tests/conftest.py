"""Strict numerics for every test: no key is used twice, and no array is broadcast by accident."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Eight simulated devices let the sharding laws run anywhere.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax

jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
