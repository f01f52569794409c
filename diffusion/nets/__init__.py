"""Networks for text and images, independent of diffusion processes."""
