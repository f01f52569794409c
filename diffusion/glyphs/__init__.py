"""A synthetic text-to-image benchmark with exact truth: scenes of colored glyphs, prompts and a checker."""
