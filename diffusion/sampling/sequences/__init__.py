"""Samplers of translators and autoregressive models: decoding, target lengths, and re-ranking of candidates."""
