"""Timings of alternatives in one run: other implementations, methods and settings, measured alternately."""
