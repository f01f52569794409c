"""Names that are bound before they are used: each rule on programs with known undefined names."""

import ast
import json.decoder
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from diffusion.metrics.python_code import defined_rate, parse
from diffusion.metrics.python_names import names

# Program, number of uses of names, and the unbound names.
CASES = {
    "builtins are bound": ("print(len([]), __name__, __file__, _)", 5, ["_"]),
    "order counts in a module": ("print(x)\nx = 1\nprint(x)", 4, ["x"]),
    "the value comes before the target": ("x = x", 1, ["x"]),
    "targets are bound from left to right": ("i, a[i] = a = 1, {}", 2, ["a"]),
    "attributes and keywords are no names": ("import os\nos.path.join(sep=1).x", 1, []),
    "imports bind the first word or the alias": (
        "import a.b, c as d\nfrom e import f, g as h\na, b, c, d, e, f, g, h",
        8,
        [*"bceg"],
    ),
    "star imports leave unknown names out": ("x\nfrom m import *\ny\nprint", 2, ["x"]),
    "augmented assignment reads first": ("x += 1\nx += 1", 2, ["x"]),
    "an annotation alone binds nothing": ("x: int\nx\ny: T = x\ny", 5, ["x", "x", "T"]),
    "for binds before its body": ("for x, *y in [x]:\n  x, y\nelse:\n  x\n(x, y)", 6, ["x"]),
    "with": ("with open(f) as f, f as g:\n  f, g", 5, ["f"]),
    "except": ("try:\n  e\nexcept E as e:\n  e\nelse:\n  e", 4, ["e", "E"]),
    "branches are all taken": ("if a:\n  x = 1\nelse:\n  x\nwhile b:\n  y\n  y = 1", 4, ["a", "b", "y"]),
    "del is no use, and binds nothing": ("del x\nx", 1, ["x"]),
    "comprehensions": ("[x + y for x in z for y in x if y]\nx", 6, ["z", "x"]),
    "a comprehension's first iterator is outside": ("[x for x in x]", 2, ["x"]),
    "the next iterators are inside": ("y = 1\n[x for x in y for y in y]", 3, ["y"]),
    "other comprehensions": ("{k: v for k, v in []}, {s for s in []}, list(g for g in [])", 5, []),
    "walrus": ("(y := 1) + y\nif (n := m) and n: pass\n[z for q in [] if (z := q)]\nz", 6, ["m"]),
    "walrus in a display": ("{(a := 1): a, 2: (b := a), b: 1}", 3, []),
    "a function runs later": ("def f(): return g(x)\nf()\ndef g(a): return a\nx = 1", 4, []),
    "a function is bound behind its head": ("@f\ndef f(a=f): pass\nf", 3, ["f", "f"]),
    "parameters": ("def f(a, /, b, *c, d=1, **e): return a, b, c, d, e, f, h", 7, ["h"]),
    "locals stay inside": ("def f():\n  x = 1\nx", 1, ["x"]),
    "locals are bound in order": ("x = 1\ndef f():\n  print(x)\n  x = 2\n  return x", 3, ["x"]),
    "an import or def makes a local": ("x = y = 1\ndef f():\n  x, y\n  import x\n  def y(): pass", 2, ["x", "y"]),
    "a loop or walrus too": ("z = w = 1\ndef f():\n  z, w\n  for z in []: [1 for q in [] if (w := q)]", 3, ["z", "w"]),
    "closures see what is complete": ("def f():\n  def g(): return x\n  x = 1\n  return g", 2, []),
    "methods do not see the class": (
        "class A:\n  x = 1\n  y = x\n  def f(s): x, A\n  z = [x for q in [x]]",
        5,
        ["x", "x"],
    ),
    "a class runs at once": ("class A(B):\n  x = A\nclass B: pass", 2, ["B", "A"]),
    "names that classes have": ("class A:\n  __module__\n  def f(self): __class__\n__qualname__", 3, ["__qualname__"]),
    "lambdas": ("f = lambda a, b=c: (a, b, d, later)\nlater = 1", 5, ["c", "d"]),
    "global from the def on": ("x\ndef f():\n  global x, y\n  x = 1\n  x\nx, y", 4, ["x", "y"]),
    "global inside a method": ("class A:\n  def f(self):\n    def g():\n      global x\n      x = 1\nx", 1, []),
    "global hides the closure": ("def f():\n  x = 1\n  def g():\n    global x\n    return x", 1, ["x"]),
    "nonlocal": ("def f():\n  x = 1\n  def g():\n    nonlocal x\n    x += 1\n    return x\nx", 3, ["x"]),
    "nonlocal of nothing is local": ("def f():\n  nonlocal x\n  x = x", 1, ["x"]),
    "annotations are read later": ("def f(a: A, b: B) -> A: pass\nclass A: pass", 3, ["B"]),
    "match": ("match [1]:\n  case [a, *b] if a: a, b\n  case {'k': c, **d}: c, d", 5, []),
    "match of classes": ("match [1]:\n  case P(e) | Q.q as e: e\n  case _: _", 4, ["P", "Q", "_"]),
    "async": ("async def f():\n  async for x in y:\n    async with x as z: await z", 3, ["y"]),
    "text is not read": ("'x'; f'{x!r:{y}}'", 2, ["x", "y"]),
}


@pytest.mark.parametrize("case", CASES)
def test_uses_and_undefined_names(case):
    program, used, undefined = CASES[case]
    assert names(ast.parse(program)) == (used, undefined)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type parameters need Python 3.12")
def test_type_parameters():
    program = (
        "def f[T: U](a: T) -> T: return T\nclass A[S](B[S]):\n  def g[R](self) -> R: return S\n"
        "type X[Q] = list[Q] | Later\nX, T\nclass Later: pass\nU = 1"
    )
    assert names(ast.parse(program)) == (13, ["B", "T"])


def test_rates_pool_the_names_of_texts_that_parse():
    def window(code):
        return f"cut\n{code}\ncut"

    texts = [window("    import os\n    os, sys"), window("y = 1\nprint(y, z)"), window("def"), window("x = 1"), ""]
    assert defined_rate(texts) == (pytest.approx(1 - 2 / 5), 2, 5, 3, 5)
    assert defined_rate([window("x = 1"), window("def")]) == (None, 0, 0, 1, 2)
    assert defined_rate(iter([])) == (None, 0, 0, 0, 0)


ODD = ["x = '\\d' is 3", "raise SystemExit", "\0", "'\ud800'", "return x", "nonlocal x\nx", "yield", "await y", "break"]
ODD += ["from m import *", "def f(a, a): global a", "x = " + "a + " * 2000 + "a", "*a", "\u2028\x0c", "\uff11 = x"]


def test_texts_neither_raise_nor_warn_nor_run():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for text in ODD:
            assert 0 <= (defined_rate([f"\n{text}\n"]).rate or 0) <= 1
    deep = defined_rate(["\n" + "-" * 900 + "x\n"])  # the parser accepts it, but it exceeds Python's stack
    assert (parse("-" * 900 + "x") is None or deep.parsed == 0) and deep.rate is None


def test_the_standard_library_binds_its_names():
    """These modules bind all names statically; an error in a rule would show in one of them."""
    for module in (json.decoder, ast, subprocess, warnings):
        counts = names(ast.parse(Path(module.__file__).read_bytes()))
        assert counts.undefined == [] and counts.used > 50, module
    broken = Path(subprocess.__file__).read_text(encoding="utf-8").replace("import signal\n", "import sign\n")
    assert set(names(ast.parse(broken)).undefined) == {"signal"}
