"""Likelihood estimators: bounds and exact values in nats, and their summary over data sets."""
