"""One training loop for every method; it knows no method by name."""
