"""Sets with layouts of their own: OpenWebText and the One Billion Word benchmark."""

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from diffusion.data import data_files, readers, tables
from diffusion.data.detokenizers import DETOKENIZERS
from diffusion.data.settings import DataSettings
from diffusion.data.types import Source, missing_data

LM1B_WHERE = (
    "http://www.statmt.org/lm-benchmark/1-billion-word-language-modeling-benchmark-r13output.tar.gz (unpack it), or "
    "prepare TFDS lm1b with file_format=array_record"
)


def openwebtext(settings: DataSettings) -> Source:
    """OpenWebText from a folder of .txt (one document per file), .jsonl, .parquet or .arrow files, in name order.

    The last `data.validation_documents` documents are the validation split (100,000 in the papers).
    """
    root = Path(settings.path).expanduser()
    suffixes = (".txt", ".jsonl", ".parquet", ".arrow")
    paths = [path for path in data_files.files_below(settings.path) if data_files.kind(path) in suffixes]
    if not paths:
        where = "https://huggingface.co/datasets/Skylion007/openwebtext"
        raise missing_data("openwebtext", "a folder of .parquet, .arrow, .jsonl or .txt files", settings.path, where)
    counts = [count_documents(path) for path in paths]
    total, held_out = sum(counts), settings.validation_documents
    if held_out >= total:
        raise ValueError(
            f"data.validation_documents: {held_out} of {total} documents leaves none to train on; pass a "
            f"smaller --config.data.validation_documents"
        )

    def read(start: int, stop: int) -> Iterator[str]:
        position = 0
        for path, count in zip(paths, counts, strict=True):
            first, last = max(start - position, 0), min(stop - position, count)
            position += count
            if first < last:
                yield from itertools.islice(documents(path), first, last)

    parts = {"train": (0, total - held_out), "validation": (total - held_out, total)}
    content = data_files.content_hash([(path.relative_to(root).as_posix(), path) for path in paths])
    reads = {split: functools.partial(read, *part) for split, part in parts.items()}
    return Source("openwebtext", reads, f"{content}-{held_out}")


def count_documents(path: Path) -> int:
    """Number of documents of a file; that of Parquet is in its metadata."""
    if data_files.kind(path) == ".parquet":
        return tables.row_count(path)
    return 1 if data_files.kind(path) == ".txt" else sum(1 for _ in tables.rows(path))


def documents(path: Path) -> Iterator[str]:
    """Documents of one file of OpenWebText."""
    if data_files.kind(path) == ".txt":
        yield readers.read_text(path)
    else:
        for place, row in tables.rows(path):
            yield readers.text_of(row, ("text",), place)


def lm1b(settings: DataSettings) -> Source:
    """The One Billion Word benchmark, from its original folder or from TFDS's `lm1b` prepared as ArrayRecord.

    Its held-out part is both the test and the validation split, since the papers validate on it as well.
    """
    detokenize = DETOKENIZERS["lm1b"] if settings.detokenize else str
    paths = data_files.files_below(settings.path)
    infos = [path for path in paths if path.name == "dataset_info.json"]
    reads: dict[str, Callable[[], Iterator[str]]] = {}
    if infos:
        paths = [path for path in paths if path.parent == infos[-1].parent]
        reads = tables.prepared(infos[-1].parent, "lm1b", "text")
    else:
        # Shard 0 of the training folder is the held-out set itself, cut into 50 parts in its own folder.
        parts = {
            "train": [
                path for path in paths if path.match("training*/news.en-*-of-*") and "-00000-of-" not in path.name
            ],
            "test": [path for path in paths if path.match("news.en.heldout-*-of-*")],
        }
        paths = [path for part in parts.values() for path in part]
        reads = {split: functools.partial(readers.lines, *part) for split, part in parts.items() if part}
    if not reads:
        expected = "news.en-*-of-00100 and news.en.heldout-*-of-00050, or a prepared TFDS folder"
        raise missing_data("lm1b", expected, settings.path, LM1B_WHERE)
    texts = {split: lambda read=read: (detokenize(line.strip()) for line in read()) for split, read in reads.items()}
    if "test" in texts:
        texts["validation"] = texts["test"]
    content = data_files.content_hash([(path.name, path) for path in paths])
    return Source("lm1b", texts, content, paper_split="test")
