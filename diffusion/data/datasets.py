"""Named data sets: their files, or the data set of the hub, and the fields that hold texts or the sides of pairs."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion.data import data_files, readers, tables
from diffusion.data.detokenizers import DETOKENIZERS
from diffusion.data.settings import DataSettings
from diffusion.data.types import Source, missing_data

WORDS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
Texts = tuple[str, ...]


def news_rows(file: Path) -> Iterator[readers.Row]:
    """Rows of AG News: its original CSV files have no header, or one that does not name a text."""
    if data_files.kind(file) != ".csv":
        yield from tables.rows(file)
        return
    table = readers.cells(file)
    place, first = next(table, ("", [""]))
    column = first.index("text") if "text" in first else None
    if first[0].strip().isdigit():  # a row, not a header such as "Class Index,Title,Description"
        table = itertools.chain([(place, first)], table)
    for place, row in table:
        yield place, {"text": " ".join(row[1:3]) if column is None else row[column]}


@dataclasses.dataclass(frozen=True)
class Named:
    """Fields and files of a data set, in a folder or on the hub.

    A split is a table (a .jsonl, .tsv, .csv, .parquet or .arrow file, or parts of Parquet) with the `fields`, which may
    be nested in a field "translation"; or plain text with one example per line, in one file for texts and in two for
    pairs.
    """

    fields: tuple[Texts, ...]  # alternative names of the text, or of source and target
    where: str
    expected: str = ""
    stems: Texts = ("{split}",)  # names of files without their suffix
    rows: Callable[[Path], Iterator[readers.Row]] = tables.rows
    plain: bool = True  # a file without the suffix of a table is plain text; otherwise it holds JSON lines
    keep_line_end: bool = False
    paper_split: str = "validation"
    combined: Texts = ()  # names of a table of pairs that are split by their source
    filter_field: str = ""  # a field that must be 1


SCIENTIFIC = Named(
    (("article", "article_text"),),
    "https://github.com/armancohan/long-summarization",
    "train.txt, val.txt, test.txt (JSON lines with article_text) or .jsonl/.parquet with article",
    plain=False,
)
TEXTS: dict[str, Named] = {
    "enwiki2018": Named(
        (("text",),),
        "WikiExtractor output of a 2018 English Wikipedia dump as JSON lines with id, title and text",
        "train.jsonl.xz, valid.jsonl.xz, test.jsonl.xz",
        plain=False,
    ),
    "wikitext": Named(
        (("text",),),
        "https://huggingface.co/datasets/Salesforce/wikitext",
        "wiki.{train,valid,test}.tokens, {train,valid,test}.txt or .parquet",
        ("{split}", "wiki.{split}.tokens", "wiki.{split}.raw"),
        keep_line_end=True,
    ),
    "ptb": Named(
        (("sentence", "text"),),
        "https://huggingface.co/datasets/ptb-text-only/ptb_text_only",
        "ptb.{train,valid,test}.txt or .parquet with sentence",
        ("ptb.{split}", "{split}"),
    ),
    "lambada": Named(
        (("text",),),
        "https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl",
        "lambada_test.jsonl",
        ("lambada_{split}", "{split}"),
        paper_split="test",
    ),
    "ag_news": Named(
        (("text",),),
        "https://huggingface.co/datasets/fancyzhx/ag_news",
        "train and test as .parquet, .jsonl or .csv (class, title, description)",
        rows=news_rows,
        paper_split="test",
    ),
    "scientific_papers_arxiv": SCIENTIFIC,
    "scientific_papers_pubmed": SCIENTIFIC,
}


def split_files(folder: str, split: str, named: Named) -> tuple[Path, ...]:
    """File of one split, or the files of the two sides of pairs; empty when there are none."""
    for word in WORDS[split]:
        for sides in itertools.product(*named.fields) if len(named.fields) == 2 else ():
            for between in ("", f".{sides[0]}-{sides[1]}", f".{sides[1]}-{sides[0]}"):
                files = [data_files.find(folder, (f"{word}{between}.{side}",)) for side in sides]
                if None not in files:
                    return tuple(file for file in files if file is not None)
        stems = [stem.format(split=word) for stem in named.stems]
        suffixes = (*tables.FORMATS, *((".txt", "") if len(named.fields) == 1 else ()))
        if (file := data_files.find(folder, [stem + suffix for stem in stems for suffix in suffixes])) is not None:
            return (file,)
    return ()


def translation_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The texts of a row of pairs by language, which tables of the hub hold in one column."""
    return row["translation"] if isinstance(row.get("translation"), dict) else row


def table_texts(read: tables.ReadRows, named: Named) -> Iterator[Texts]:
    """Texts of each row of a table."""
    for place, row in read():
        if not named.filter_field or str(row.get(named.filter_field, 1)) == "1":
            row = translation_of(row)
            yield tuple(readers.text_of(row, names, place) for names in named.fields)


def file_texts(files: Sequence[Path], named: Named) -> Iterator[Texts]:
    """Texts of each example of one split; parallel files must have equally many lines."""
    if len(files) == 1 and (data_files.kind(files[0]) in tables.FORMATS or not named.plain):
        yield from table_texts(functools.partial(named.rows, files[0]), named)
        return
    for lines in itertools.zip_longest(*map(readers.lines, files)):
        if None in lines:
            counts = " and ".join(f"{sum(1 for _ in readers.lines(file))} in {file}" for file in files)
            raise ValueError(f"data.path: numbers of lines differ, {counts}; pass files whose lines are pairs")
        if named.keep_line_end:  # as in the published rows: a blank line of WikiText is an empty row
            yield tuple(f"{line}\n" if line.strip() else "" for line in lines)
        else:
            yield tuple(line.strip() for line in lines)


def examples(named: Named, settings: DataSettings) -> tuple[dict[str, Callable[[], Iterator[Texts]]], str]:
    """Readers of the examples of each split, and a hash of their content; no reader where there are no files.

    A single file of texts is the test split.
    """
    place = Path(settings.path).expanduser()
    if settings.path and place.is_file() and len(named.fields) == 1:
        found, place = {"test": (place,)}, place.parent
    else:
        found = {split: files for split in WORDS if (files := split_files(settings.path, split, named))}
        if not found:
            reads, content = tables.split_rows(settings)
            return {split: functools.partial(table_texts, read, named) for split, read in reads.items()}, content
    named_files = [(f"{split}/{file.relative_to(place)}", file) for split, files in found.items() for file in files]
    reads = {split: functools.partial(file_texts, files, named) for split, files in found.items()}
    return reads, data_files.content_hash(named_files)


def texts(settings: DataSettings) -> Source:
    """Opens one of TEXTS in the folder `data.path`, where a single file is the test split, or on the hub."""
    name, named = settings.source, TEXTS[settings.source]
    reads, content = examples(named, settings)
    if not reads:
        raise missing_data(name, named.expected, settings.path, named.where)
    detokenize = DETOKENIZERS.get(name, str) if settings.detokenize else str
    documents = {split: lambda read=read: (detokenize(text) for (text,) in read()) for split, read in reads.items()}
    return Source(name, documents, content, paper_split=named.paper_split)
