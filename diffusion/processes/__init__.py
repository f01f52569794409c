"""Forward processes of masked, of uniform-state and of Gaussian diffusion."""
