"""Evaluation: likelihood bounds, and measures of samples."""
