"""Ahead-of-time compilation of the programs of a row, and what their text says of communication."""
