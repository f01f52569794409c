"""Rates of texts that Python's parser accepts, whole or without what a window cuts."""

import subprocess
import sys
import warnings

from diffusion.metrics.python_code import inner_blocks, inner_lines, parse_rate, parses
from tests.checks import refused

WHOLE = "import os\n\ndef f(x):\n    return x\n\nprint(f(1))\n"
BLOCKS = "def f(x):\n    if x:\n        return 1\n    else:\n        return x\n\ny = f(2)"
WINDOW = f"n x + 1\n\n{BLOCKS}\nclass A:\n    de"
HOSTILE = ["x = 1\0", "(" * 5000, "-" * 200000 + "1", "x = " + "[" * 400 + "]" * 400, "'\ud800'", "1" * 9000, "def"]


def test_parse_rate_counts_programs():
    assert parses(WHOLE) and not parses(WINDOW)
    assert inner_blocks(WINDOW) == BLOCKS
    assert inner_lines("self.a(\n    x = 1\n    y = 2\n  )") == "x = 1\ny = 2"
    assert parse_rate([WHOLE, WINDOW, "", "# nothing\n"]) == (0.25, 0.25, 0.5, 4)
    with refused("no text"):
        parse_rate([])


def test_blocks_keep_clauses_with_their_statement():
    text = "cut\ntry:\n    a()\nexcept ValueError:\n    b()\nelse:\n    c()\nx = (\n    1\n)\nlast("
    assert parses(inner_blocks(text)) and inner_blocks(text).endswith(")")


def test_parser_is_guarded():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not parses(HOSTILE[0]) and parses("x = '\\d' is 3")
    # In a separate process, since a parser that overflows the stack ends it.
    program = f"from diffusion.metrics.python_code import parses; print(any(map(parses, {HOSTILE!r})))"
    result = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "False", result.stderr
