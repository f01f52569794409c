"""HTML of result tables: from the Markdown in which they are written, with images as data URIs."""

import base64
import re
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

TEMPLATE = Path(__file__).with_name("report.html")
IMAGE = re.compile(r"!\[(.*?)\]\((.*?)\)")
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".svg": "image/svg+xml"}


def page(title: str, body: str) -> str:
    """Return a whole page, which loads nothing and runs no script."""
    return TEMPLATE.read_text(encoding="utf-8").replace("__TITLE__", escape(title)).replace("__BODY__", body)


def data_uri(path: Path) -> str:
    """Return an image file as a data URI; raises KeyError for another kind of file."""
    return f"data:{TYPES[path.suffix.lower()]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def figure(path: Path, caption: str) -> str:
    """Return an image with its caption."""
    return (
        f'<figure><img src="{data_uri(path)}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def grid(headings: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str] = ()) -> str:
    """Return a table of cells in HTML; `kinds` are classes of its rows."""
    head = "".join(f"<th>{each}</th>" for each in headings)
    kinds = kinds or [""] * len(rows)
    body = "".join(
        f'<tr class="{kind}">' + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
        for row, kind in zip(rows, kinds, strict=True)
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def inline(text: str) -> str:
    """Return a line of Markdown with code between backticks and bold text."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", marked)


def from_markdown(text: str, image: Callable[[str, str], str]) -> str:
    """Return headings, tables, lists, paragraphs and images of Markdown as HTML.

    Args:
      text: Markdown as tables are written in: blocks between empty lines.
      image: gives the HTML of an image with this caption and path.
    """
    parts, figures = [], []
    for block in filter(None, re.split(r"\n\s*\n", text.strip())):
        lines = block.splitlines()
        if found := IMAGE.fullmatch(block.strip()):
            figures.append(image(found[1], found[2]))
        elif lines[0].startswith("|"):
            cells = [[inline(cell.strip()) for cell in line.strip().strip("|").split("|")] for line in lines]
            parts.append(grid(cells[0], cells[2:]))
        elif lines[0].startswith("#"):
            level = min(len(lines[0]) - len(lines[0].lstrip("#")) + 1, 6)
            parts.append(f"<h{level}>{inline(lines[0].lstrip('# '))}</h{level}>")
        elif all(line.startswith("- ") for line in lines):
            parts.append(f"<ul>{''.join(f'<li>{inline(line[2:])}</li>' for line in lines)}</ul>")
        else:
            parts.append(f"<p>{inline(' '.join(lines))}</p>")
    shown = "".join(figures)
    return "".join(parts) + (f'<div class="figures">{shown}</div>' if shown else "")
