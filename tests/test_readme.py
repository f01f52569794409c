"""What the documentation says is there: paths, links, commands, fields and rows; and its library example runs."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TEXTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", ".github/*.md", "configs/*.md", "diffusion/*.md", "tests/*.md", "experiments/**/*.md")
    for path in ROOT.glob(pattern)
)
FOLDERS = (".github", "configs", "diffusion", "experiments", "tests")


def code(text, language):
    """The code blocks of a language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)


def commands():
    """(text, words) of every command line in the code blocks of all texts, comments and continuations resolved."""
    for name in TEXTS:
        for block in code((ROOT / name).read_text(), "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.split("&&"):
                    words = shlex.split(part, comments=True)
                    for start in ("python", "launch.py"):
                        if start in words:
                            yield name, words[words.index(start) :]
                            break


COMMANDS = list(commands())


def test_the_readme_is_short_and_opens_with_its_two_commands():
    assert len(README.splitlines()) <= 250
    first, second = code(README, "bash")[:2]
    assert first.strip().endswith("python launch.py run --config=configs/quickstart.py") and first.count("\n") == 1
    assert second == "python -m pytest -n 2\n"


def test_the_library_example_runs():
    """As a user runs it, in a process of its own."""
    (example,) = code(README, "python")
    done = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    bound, entropy = map(float, re.findall(r"\d+\.\d+", done.stdout.splitlines()[0]))
    assert entropy < bound < 0.5, done.stdout


def test_the_quickstart_shows_rows_of_its_committed_table():
    committed = (ROOT / "experiments/tables/quickstart.local.md").read_text().splitlines()
    section = README.split("## Quickstart")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) >= 6 and not set(rows) - set(committed)


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_to_files(name):
    path = ROOT / name
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text())
    local = [link.partition("#")[0] for link in links if not link.startswith(("http:", "https:", "mailto:", "#"))]
    missing = [link for link in local if not (path.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("name", [name for name in TEXTS if "/tables/" not in name])
def test_paths_in_the_text_exist(name):
    text = re.sub(r"```.*?```", "", (ROOT / name).read_text(), flags=re.DOTALL)
    paths = {path for path in re.findall(r"`([\w.\-]+(?:/[\w.\-]+)*/?)`", text) if path.startswith(FOLDERS)}
    paths = {path for path in paths if "/" in path and "NAME" not in path and "TABLE" not in path}
    missing = sorted(path for path in paths if not (ROOT / path).exists())
    assert not missing


def test_commands_use_verbs_flags_and_modules_that_are_there():
    launcher = (ROOT / "launch.py").read_text()
    flags = set(re.findall(r"DEFINE_\w+\(\s*\"([a-z_]+)\"", launcher))
    verbs = set(re.findall(r"^  ([a-z]+) ", ast.get_docstring(ast.parse(launcher)), re.MULTILINE))
    assert {"run", "sample"} <= verbs and {"config", "row"} <= flags
    wrong = []
    for name in TEXTS:
        for module in set(re.findall(r"python -m ((?:diffusion|experiments)[\w.]*)", (ROOT / name).read_text())):
            place = module.rstrip(".").replace(".", "/")
            if not any((ROOT / f"{place}{end}").exists() for end in (".py", "/__main__.py")):
                wrong.append(f"{name}: no module {module}")
    for name, words in COMMANDS:
        if "launch.py" not in words[:2]:
            continue
        rest = words[words.index("launch.py") + 1 :]
        if rest[0] not in verbs and rest[0] != "VERB":
            wrong.append(f"{name}: no verb {rest[0]}")
        given = {word.partition("=")[0][2:] for word in rest if word.startswith("--")}
        unknown = {flag for flag in given if flag not in flags and not flag.startswith(("config.", "sweep."))}
        wrong += [f"{name}: no flag --{flag}" for flag in unknown]
    assert COMMANDS and not wrong, "\n".join(wrong)


def test_commands_use_configs_rows_and_fields_that_are_there():
    wrong = []
    for name, words in COMMANDS:
        options = dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)
        file, _, variant = options.get("config", "").partition(":")
        if not file or not re.fullmatch(r"configs/[a-z0-9_]+\.py", file):
            continue
        module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
        config = module.get_config(variant or "local")
        if "row" in options and options["row"] not in {row["name"] for row in module.rows(config)}:
            wrong.append(f"{name}: {file} has no row {options['row']!r}")
        for key in options:
            value = config
            for part in key.split(".")[1:]:
                value = value[part] if hasattr(value, "keys") and part in value else None
            if key.startswith(("config.", "sweep.")) and value is None:
                wrong.append(f"{name}: no field {key}")
    assert not wrong, "\n".join(wrong)
