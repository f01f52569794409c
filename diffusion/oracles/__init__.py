"""Distributions with exactly known probabilities, for tests of estimators, denoisers and samplers."""
