"""Timings beside other implementations, methods and settings, in turns within one run."""
