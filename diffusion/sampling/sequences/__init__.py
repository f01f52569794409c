"""Sampling of token sequences from translators and autoregressive models: decoding, lengths, candidates."""
