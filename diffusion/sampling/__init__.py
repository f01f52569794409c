"""Samplers: one scan that proposes, selects and composes."""
