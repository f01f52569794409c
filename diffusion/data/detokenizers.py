"""Detokenizers of benchmark corpora, with the rules of the public MDLM code.

Zero-shot perplexities depend on each of these rules and on their order (Sahoo et al. 2024, appendix C.2, following the
GPT-2 protocol). Pairs of strings are replaced literally, compiled pairs as regular expressions.
"""

import re
from collections.abc import Callable, Sequence

Rule = tuple[str | re.Pattern, str]


def _patterns(*pairs: tuple[str, str]) -> list[Rule]:
    return [(re.compile(pattern), replacement) for pattern, replacement in pairs]


WIKITEXT: tuple[Rule, ...] = (
    ("s '", "s'"),
    # The published rule r"/' [0-9]/" is a JavaScript pattern that Python reads literally; its effect is reproduced.
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
    """Joins contractions of the Penn Treebank and replaces N by 1 and <unk> by ?."""
    return apply_rules(PTB, text)


def lm1b(text: str) -> str:
    """Joins contractions, punctuation, quotes and brackets of the One Billion Word benchmark."""
    return apply_rules(LM1B, text)


def lambada(text: str) -> str:
    """Straightens quotation marks and prepends a newline, as in the public evaluation of OpenAI's LAMBADA file."""
    return "\n" + text.replace("“", '"').replace("”", '"').strip()


def scientific_papers(text: str) -> str:
    """Applies the WikiText rules, then those of LM1B."""
    return lm1b(wikitext(text))


DETOKENIZERS: dict[str, Callable[[str], str]] = {
    "wikitext": wikitext,
    "ptb": ptb,
    "lm1b": lm1b,
    "lambada": lambada,
    "scientific_papers_arxiv": scientific_papers,
    "scientific_papers_pubmed": scientific_papers,
}
"""Detokenizer of each source; sources that are absent are read unchanged."""
