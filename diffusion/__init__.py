"""Sample-efficient diffusion models in JAX: one small core, five papers."""
