"""Undo the word tokenization of benchmark corpora, with the rules of the public MDLM code.

Zero-shot perplexities depend on every one of these rules (Sahoo et al. 2024, appendix C.2, following the
GPT-2 protocol), so each is an ordered table: literal pairs are replaced as text, compiled pairs as patterns.
"""

import re
from collections.abc import Callable, Sequence

Rule = tuple[str | re.Pattern, str]


def _patterns(*pairs: tuple[str, str]) -> list[Rule]:
    return [(re.compile(pattern), replacement) for pattern, replacement in pairs]


WIKITEXT: tuple[Rule, ...] = (
    ("s '", "s'"),
    # The published rule r"/' [0-9]/" is a JavaScript pattern read by Python; kept as it acts there.
    *_patterns((r"/' [0-9]/", "/'[0-9]/")),
    (" @-@ ", "-"),
    (" @,@ ", ","),
    (" @.@ ", "."),
    *((f" {mark} ", f"{mark} ") for mark in ":;.!?,"),
    *_patterns(
        (r"\(\s*([^\)]*?)\s*\)", r"(\1)"),
        (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
        (r"{\s*([^}]*?)\s*}", r"{\1}"),
        (r"\"\s*([^\"]*?)\s*\"", r'"\1"'),
        (r"'\s*([^']*?)\s*'", r"'\1'"),
    ),
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" ° ", "°"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
)

PTB: tuple[Rule, ...] = (
    (" 's", "'s"),
    ("s ' ", "s' "),
    (" n't", "n't"),
    (" \n ", "\n"),
    ("\\/", "/"),
    *((" N ", " 1 "),) * 10,  # neighboring numbers share a space, so one pass misses every second one
    ("$ 1", "$1"),
    ("# 1", "#1"),
    ("<unk>", "?"),
)

LM1B: tuple[Rule, ...] = (
    ("http : / / ", "http://"),
    ("https : / / ", "https://"),
    *_patterns((r" \'(\w+)", r"'\1"), (r" (\w+) \. ", r" \1. "), (r" (\w+) \.$", r" \1.")),
    (" ? ", "? "),
    *_patterns((r" \?$", "?")),
    (" ! ", "! "),
    *_patterns((r" \!$", "!")),
    (" , ", ", "),
    (" : ", ": "),
    (" ; ", "; "),
    (" / ", "/"),
    *_patterns(
        (r"\" ([^\"]+) \"", r'"\1"'),
        (r"\' ([^\']+) \'", r"'\1'"),
        (r"\( ([^\(\)]+) \)", r"(\1)"),
        (r"\[ ([^\[\]]+) \]", r"[\1]"),
    ),
    ("$ ", "$"),
    ("£ ", "£"),
)


def apply_rules(rules: Sequence[Rule], text: str) -> str:
    """Applies every rule once, in order."""
    for pattern, replacement in rules:
        if isinstance(pattern, str):
            text = text.replace(pattern, replacement)
        else:
            text = pattern.sub(replacement, text)
    return text


def wikitext(text: str) -> str:
    """Joins the `@-@` splits, punctuation, brackets and headings of WikiText."""
    return apply_rules(WIKITEXT, text)


def ptb(text: str) -> str:
    """Joins contractions and reads N as 1 and <unk> as ? in the Penn Treebank."""
    return apply_rules(PTB, text)


def lm1b(text: str) -> str:
    """Joins contractions, punctuation, quotes and brackets of the One Billion Word benchmark."""
    return apply_rules(LM1B, text)


def lambada(text: str) -> str:
    """Straightens quotation marks and starts the passage on a new line, as OpenAI's LAMBADA file is read."""
    return "\n" + text.replace("“", '"').replace("”", '"').strip()


def scientific_papers(text: str) -> str:
    """The WikiText rules, then those of LM1B."""
    return lm1b(wikitext(text))


DETOKENIZERS: dict[str, Callable[[str], str]] = {
    "wikitext": wikitext,
    "ptb": ptb,
    "lm1b": lm1b,
    "lambada": lambada,
    "scientific_papers_arxiv": scientific_papers,
    "scientific_papers_pubmed": scientific_papers,
}
"""Sources that are detokenized; ag_news and the others are read as they are."""
