"""Zero-shot perplexity on seven corpora: the sets, their columns, and published figures of two baselines."""

ZERO_SHOT = {
    "ptb": "ptb",
    "wikitext": "wikitext",
    "lm1b": "lm1b",
    "lambada": "lambada",
    "ag_news": "ag_news",
    "pubmed": "scientific_papers_pubmed",
    "arxiv": "scientific_papers_arxiv",
}
TITLES = ("PTB", "WikiText", "LM1B", "LAMBADA", "AG News", "PubMed", "arXiv")
# In the order of ZERO_SHOT.
AR = (82.05, 25.75, 51.25, 51.28, 52.09, 49.01, 41.73)
MDLM = (95.26, 32.83, 67.01, 47.52, 61.15, 41.89, 37.37)
COLUMNS = tuple((f"{name}_perplexity", title, ".2f") for name, title in zip(ZERO_SHOT, TITLES, strict=True))
TOLERANCE = {"perplexity": 0.3} | {f"{name}_perplexity": 3.0 for name in ZERO_SHOT}


def figures(perplexity: float, zero_shot: tuple[float, ...]) -> dict[str, float]:
    """One row of the published table, by metric."""
    return {"perplexity": perplexity} | {key: value for (key, *_), value in zip(COLUMNS, zero_shot, strict=True)}


def score_zero_shot(config, required: bool) -> None:
    """Score the seven corpora too; a missing one is an error if `required`, and an empty cell otherwise."""
    sets = {name: dict(source=source, path="") for name, source in ZERO_SHOT.items()}
    config.evaluate.update(zero_shot=sets, zero_shot_required=required)
