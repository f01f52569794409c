"""Samplers of masked diffusion: one scan over a time grid, with a policy and a remasking rule."""
