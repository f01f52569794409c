"""Noise schedules of masked and of Gaussian diffusion."""
