"""Detokenizers of benchmark corpora, with the rules of the public MDLM code.

Zero-shot perplexities depend on each of these rules and on their order (Sahoo et al. 2024, appendix C.2, following the
GPT-2 protocol). Pairs of strings are replaced literally, compiled pairs as regular expressions.
"""

import functools
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


def lambada(text: str) -> str:
    """Straightens quotation marks and prepends a newline, as in the public evaluation of OpenAI's LAMBADA file."""
    return "\n" + text.replace("“", '"').replace("”", '"').strip()


DETOKENIZERS: dict[str, Callable[[str], str]] = {
    "wikitext": functools.partial(apply_rules, WIKITEXT),
    "ptb": functools.partial(apply_rules, PTB),
    "lm1b": functools.partial(apply_rules, LM1B),
    "lambada": lambada,
    "scientific_papers_arxiv": functools.partial(apply_rules, WIKITEXT + LM1B),
    "scientific_papers_pubmed": functools.partial(apply_rules, WIKITEXT + LM1B),
}
"""Detokenizer of each source; sources that are absent are read unchanged."""
