"""Packages import only what lies below them, so that each can be read, and used, without those above it."""

import ast
from pathlib import Path

LAYERS = (
    "storage types",
    "partition",
    "metrics nets rng",
    "categorical convert glyphs readout report schedules train",
    "codecs data",
    "processes",
    "objectives sampling",
    "likelihood",
    "oracles",
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}
ROOT = Path(__file__).parents[1] / "diffusion"


def imports(node: ast.AST) -> list[str]:
    """Packages of diffusion that a statement imports from."""
    if isinstance(node, ast.ImportFrom) and node.module == "diffusion":
        return [alias.name for alias in node.names if alias.name in RANK]
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffusion."):
        return [node.module.split(".")[1]]
    return []


def test_no_package_imports_one_beside_or_above_it():
    wrong = set()
    for path in ROOT.rglob("*.py"):
        package = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            for imported in imports(node):
                if imported != package and RANK[imported] >= RANK[package]:
                    wrong.add(f"{path.relative_to(ROOT)} imports diffusion.{imported}")
    assert not wrong


def test_every_package_has_a_layer():
    found = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert found - {"__init__"} == set(RANK)
