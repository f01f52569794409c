"""One file per table: numbers and names, independent of `diffusion`."""
