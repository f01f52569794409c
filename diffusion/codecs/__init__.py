"""Codecs between tokens or pixels and what a process corrupts: sub-tokens, embeddings, levels."""
