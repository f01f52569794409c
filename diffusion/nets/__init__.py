"""Networks: transformers for text, knowing nothing of diffusion."""
