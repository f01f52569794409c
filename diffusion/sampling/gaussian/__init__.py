"""Samplers of Gaussian diffusion: solvers as tables of coefficients, and guides that act on the clean estimate."""
