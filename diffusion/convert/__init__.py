"""Conversion of public PyTorch checkpoints to parameter trees."""
