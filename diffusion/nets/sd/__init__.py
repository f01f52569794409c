"""Networks of latent text-to-image diffusion, with the parameters of the published checkpoints."""
