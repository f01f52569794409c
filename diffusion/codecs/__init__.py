"""Codecs between tokens and the states that a process corrupts: sub-tokens, embeddings and pixel values."""
