"""Forward processes of masked and of Gaussian diffusion."""
