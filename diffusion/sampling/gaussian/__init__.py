"""Sampling of Gaussian diffusion: solvers as tables of coefficients, guides in x_0-space."""
