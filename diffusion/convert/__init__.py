"""Weights of public PyTorch checkpoints as this project's parameter trees."""
