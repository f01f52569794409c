"""GenEval (Ghosh et al., arXiv 2310.11513) on saved images: detector, colors, verdicts, and scores with intervals."""
