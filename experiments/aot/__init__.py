"""Ahead-of-time compilation of the programs of a row, and the communication in their HLO."""
