"""Corruption processes: what noise does to data, and its reverse step."""
