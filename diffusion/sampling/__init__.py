"""Samplers of masked diffusion, of Gaussian diffusion and of token sequences."""
