"""Networks of latent text-to-image diffusion, parameter for parameter those of the published checkpoints."""
