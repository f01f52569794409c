"""Likelihood estimators: bounds and exact values in nats, and their summary over a data set."""
