"""A synthetic text-to-image benchmark with exact ground truth: scenes of colored glyphs, prompts and a checker."""
