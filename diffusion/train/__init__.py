"""The training loop of all methods, independent of any of them."""
