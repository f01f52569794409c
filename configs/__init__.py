"""One file a paper table: numbers and names only, nothing imported from `diffusion`."""
