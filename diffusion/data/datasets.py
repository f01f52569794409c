"""Benchmark corpora from local files, with the rows, text fields and detokenizers of the public MDLM code."""

import csv
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from diffusion.data import readers
from diffusion.data.detokenizers import DETOKENIZERS
from diffusion.data.settings import DataSettings
from diffusion.data.types import Source, missing_data

SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
SUFFIXES = (".jsonl", ".parquet", ".csv", ".txt")


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Location of the text of a corpus: file stems (with "{split}" to substitute), row fields, and origin."""

    stems: tuple[str, ...]
    fields: tuple[str, ...]
    where: str
    expected: str
    plain: str = "lines"  # content of a plain text file: lines | json (rows under another suffix) | none
    keep_line_end: bool = False
    paper_split: str = "validation"


SCIENTIFIC = Corpus(
    ("{split}",),
    ("article", "article_text"),
    "https://github.com/armancohan/long-summarization",
    "train.txt, val.txt, test.txt (JSON lines with article_text) or .jsonl/.parquet with article",
    plain="json",
)

CORPORA: dict[str, Corpus] = {
    "enwiki2018": Corpus(
        ("{split}",),
        ("text",),
        "WikiExtractor output of a 2018 English Wikipedia dump as JSON lines with id, title and text",
        "train.jsonl.xz, valid.jsonl.xz, test.jsonl.xz",
        plain="none",
    ),
    "wikitext": Corpus(
        ("{split}", "wiki.{split}.tokens", "wiki.{split}.raw"),
        ("text",),
        "https://huggingface.co/datasets/Salesforce/wikitext",
        "wiki.{train,valid,test}.tokens, {train,valid,test}.txt or .parquet",
        keep_line_end=True,
    ),
    "ptb": Corpus(
        ("ptb.{split}", "{split}"),
        ("sentence", "text"),
        "https://huggingface.co/datasets/ptb-text-only/ptb_text_only",
        "ptb.{train,valid,test}.txt or .parquet with sentence",
    ),
    "lambada": Corpus(
        ("lambada_{split}", "{split}"),
        ("text",),
        "https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl",
        "lambada_test.jsonl",
        paper_split="test",
    ),
    "ag_news": Corpus(
        ("{split}",),
        ("text",),
        "https://huggingface.co/datasets/fancyzhx/ag_news",
        "train and test as .parquet, .jsonl or .csv (class, title, description)",
        paper_split="test",
    ),
    "scientific_papers_arxiv": SCIENTIFIC,
    "scientific_papers_pubmed": SCIENTIFIC,
}


def locate(path: str, names: Sequence[str]) -> Path | None:
    """Returns `path` itself when it is a file, else the first of `names` in that folder, plain or compressed."""
    place = Path(path).expanduser()
    if not path:
        return None
    return place if place.is_file() else readers.find(place, names)


def corpus(name: str, settings: DataSettings) -> Source:
    """Opens one of CORPORA from the folder `data.path`; a single file is the test split."""
    layout = CORPORA[name]
    place = Path(settings.path).expanduser()
    files: dict[str, Path] = {}
    if settings.path and place.is_file():
        files["test"] = place
    elif settings.path:
        for split, words in SPLITS.items():
            stems = [stem.format(split=word) for word in words for stem in layout.stems]
            names = [stem + suffix for stem in stems for suffix in SUFFIXES] + stems
            if (file := readers.find(place, names)) is not None:
                files[split] = file
    if not files:
        raise missing_data(name, layout.expected, settings.path, layout.where)
    detokenize = DETOKENIZERS.get(name, str) if settings.detokenize else str
    documents = {split: _reader(file, layout, detokenize) for split, file in files.items()}
    return Source(
        name,
        documents,
        readers.content_hash([(split, file) for split, file in files.items()]),
        paper_split=layout.paper_split,
    )


def _reader(file: Path, layout: Corpus, detokenize: Callable[[str], str]) -> Callable[[], Iterator[str]]:
    suffix = readers.kind(file)

    def read() -> Iterator[str]:
        if suffix == ".csv":
            yield from map(detokenize, _news(file, layout.fields))
        elif suffix in (".jsonl", ".parquet", ".arrow") or layout.plain == "json":
            for record in readers.records(file):
                yield detokenize(readers.field_of(record, layout.fields, file))
        elif layout.plain == "lines":
            for line in readers.lines(file):
                # As in the published rows: a blank WikiText line is an empty row, others keep their newline.
                yield detokenize((line if line.strip() else "") if layout.keep_line_end else line.strip())
        else:
            raise ValueError(f"data.path: {file} is not JSON lines; expected {layout.expected}")

    return read


def _news(file: Path, fields: tuple[str, ...]) -> Iterator[str]:
    """Texts of CSV rows: a named field, or title and description of the original AG News, which has no header."""
    with readers.open_text(file) as stream:
        rows = csv.reader(stream)
        header = next(rows, [])
        column = next((header.index(field) for field in fields if field in header), None)
        if column is None and header and header[0].strip().isdigit():
            rows = itertools.chain([header], rows)  # a row, not a header such as "Class Index,Title,Description"
        for row in filter(None, rows):
            yield " ".join(row[1:3]) if column is None else row[column]


def openwebtext(settings: DataSettings) -> Source:
    """OpenWebText from a folder of .txt (one document per file), .jsonl, .parquet or .arrow files, in name order.

    The last `data.validation_documents` documents are the validation split (100,000 in the papers).
    """
    where = "https://huggingface.co/datasets/Skylion007/openwebtext"
    root = Path(settings.path).expanduser()
    layouts = (".txt", ".jsonl", ".parquet", ".arrow")
    paths = sorted(root.rglob("*")) if settings.path and root.is_dir() else []
    files = [path for path in paths if path.is_file() and readers.kind(path) in layouts]
    if not files:
        raise missing_data("openwebtext", "a folder of .parquet, .arrow, .jsonl or .txt files", settings.path, where)
    counts = [readers.count_records(path) for path in files]
    total, held_out = sum(counts), settings.validation_documents
    if held_out >= total:
        raise ValueError(
            f"data.validation_documents: {held_out} of {total} documents leaves none to train on; pass a "
            f"smaller --config.data.validation_documents"
        )

    def read(start: int, stop: int) -> Iterator[str]:
        position = 0
        for path, count in zip(files, counts, strict=True):
            first, last = max(start - position, 0), min(stop - position, count)
            position += count
            if first < last:
                yield from itertools.islice(_documents(path), first, last)

    documents = {
        "train": lambda: read(0, total - held_out),
        "validation": lambda: read(total - held_out, total),
    }
    names = [(path.relative_to(root).as_posix(), path) for path in files]
    return Source("openwebtext", documents, f"{readers.content_hash(names)}-{held_out}")


def _documents(path: Path) -> Iterator[str]:
    if readers.kind(path) == ".txt":
        yield readers.read_text(path)
    else:
        for record in readers.records(path):
            yield readers.field_of(record, ("text",), path)


def lm1b(settings: DataSettings) -> Source:
    """The One Billion Word benchmark, from its original folder or from TFDS's `lm1b` prepared as ArrayRecord.

    Its held-out part is both the test and the validation split, since the papers validate on it as well.
    """
    where = (
        "http://www.statmt.org/lm-benchmark/1-billion-word-language-modeling-benchmark-r13output.tar.gz "
        "(unpack it), or prepare TFDS lm1b with file_format=array_record"
    )
    detokenize = DETOKENIZERS["lm1b"] if settings.detokenize else str
    root = Path(settings.path).expanduser()
    prepared = sorted(root.rglob("dataset_info.json")) if settings.path and root.is_dir() else []
    if prepared:
        return _lm1b_prepared(prepared[-1].parent, detokenize)
    parts = {}
    if settings.path and root.is_dir():
        parts["train"] = sorted(
            path for path in root.rglob("news.en-*-of-*") if path.parent.name.startswith("training")
        )
        # Shard 0 of the training folder is the held-out set itself, cut into 50 parts in its own folder.
        parts["train"] = [path for path in parts["train"] if "-00000-of-" not in path.name]
        parts["test"] = sorted(root.rglob("news.en.heldout-*-of-*"))
    parts = {split: files for split, files in parts.items() if files}
    if not parts:
        expected = "news.en-*-of-00100 and news.en.heldout-*-of-00050, or a prepared TFDS folder"
        raise missing_data("lm1b", expected, settings.path, where)

    def reader(files: list[Path]) -> Callable[[], Iterator[str]]:
        return lambda: (detokenize(line.strip()) for file in files for line in readers.lines(file))

    documents = {split: reader(files) for split, files in parts.items()}
    names = [(path.name, path) for files in parts.values() for path in files]
    return _lm1b_source(documents, readers.content_hash(names))


def _lm1b_prepared(folder: Path, detokenize: Callable[[str], str]) -> Source:
    builder = readers.tfds_builder(folder, "lm1b")

    def reader(split: str) -> Callable[[], Iterator[str]]:
        return lambda: (detokenize(row["text"].decode().strip()) for row in builder.as_data_source(split))

    files = sorted(path for path in folder.iterdir() if path.is_file())
    documents = {split: reader(split) for split in builder.info.splits}
    return _lm1b_source(documents, readers.content_hash([(path.name, path) for path in files]))


def _lm1b_source(documents: dict[str, Callable[[], Iterator[str]]], content_hash: str) -> Source:
    if "test" in documents:
        documents["validation"] = documents["test"]
    return Source("lm1b", documents, content_hash, paper_split="test")
