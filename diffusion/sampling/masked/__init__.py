"""Sampling of masked diffusion: one scan, with a policy, a remasking rule and a grid of times."""
