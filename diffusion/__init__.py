"""Sample-efficient diffusion models in JAX: one small core, five papers."""

__version__ = "0.1.0"
