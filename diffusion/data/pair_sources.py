"""Sources of pairs: translations, paraphrases, simplifications and summaries, from files as published."""

import csv
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion.data import pair_tasks, readers
from diffusion.data.pair_tasks import Pair
from diffusion.data.splits import NAMES, md5_number, split_of
from diffusion.data.tokenizers import digest
from diffusion.data.types import missing_data

ALIASES = {"train": ("train",), "validation": ("valid", "validation", "dev"), "test": ("test",)}
TABLES = (".jsonl", ".tsv", ".csv", ".parquet")
TATOEBA_WHERE = "https://www.manythings.org/anki, deu-eng.zip"


@dataclasses.dataclass(frozen=True)
class PairSource:
    """Pairs of each split: `splits[split]()` starts a new pass over them, always in the same order."""

    name: str
    splits: Mapping[str, Callable[[], Iterator[Pair]]]
    content_hash: str


@dataclasses.dataclass(frozen=True)
class Layout:
    """Layout of a data set in a folder: two parallel files per split, or one table per split.

    `sides` are the names of source and target: suffixes of file names (train.de, train.en, train.de-en.de) and columns
    of tables, where they may be nested in a column "translation".
    """

    sides: tuple[tuple[str, ...], tuple[str, ...]]
    where: str
    combined: tuple[str, ...] = ()  # names of a table of all splits, split by the md5 of the source
    filter_column: str = ""  # a column that must be 1


LAYOUTS = {
    "iwslt14": Layout((("de",), ("en",)), "fairseq's examples/translation/prepare-iwslt14.sh"),
    "wmt14": Layout((("en",), ("de",)), "https://huggingface.co/datasets/wmt/wmt14, or Fully-NAT's package"),
    "wmt16": Layout((("ro",), ("en",)), "https://huggingface.co/datasets/wmt/wmt16, or Fully-NAT's package"),
    "qqp": Layout(
        (("src", "question1", "sentence1"), ("trg", "question2", "sentence2")),
        "DiffuSeq's release (train.jsonl, valid.jsonl, test.jsonl) or quora_duplicate_questions.tsv",
        combined=("quora_duplicate_questions.tsv", "questions.csv"),
        filter_column="is_duplicate",
    ),
    "wiki_auto": Layout(
        (("src", "normal_sentence", "complex"), ("trg", "simple_sentence", "simple")),
        "DiffuSeq's release, or https://huggingface.co/datasets/wiki_auto (auto_acl)",
    ),
    "gigaword": Layout(
        (("document", "src", "article.txt", "article.filter.txt"), ("summary", "tgt", "title.txt", "title.filter.txt")),
        "https://huggingface.co/datasets/gigaword, or the files of harvardnlp/sent-summary",
    ),
}


def published_pairs(name: str, path: str, reverse: bool = False) -> PairSource:
    """Opens one of LAYOUTS in the folder `path`, plain or compressed, which has at least a training or a test split.

    `reverse` swaps source and target.
    Raises: ValueError naming missing files, or parallel files whose numbers of lines differ.
    """
    layout = LAYOUTS[name]
    folder = Path(path).expanduser()
    split_files: dict[str, tuple[Path, ...]] = {}
    if path and folder.is_dir():
        split_files = {split: files for split in NAMES if (files := _files(folder, split, layout))}
    combined = readers.find(folder, layout.combined) if path and layout.combined and not split_files else None
    if combined is not None:
        split_files = dict.fromkeys(NAMES, (combined,))
    if not {"train", "test"} & set(split_files):
        first, second = layout.sides[0][0], layout.sides[1][0]
        expected = f"train.{first} and train.{second}, or train.jsonl, .tsv, .csv or .parquet (and valid, test)"
        raise missing_data(name, expected, path, layout.where)
    distinct = sorted(set(itertools.chain(*split_files.values())))
    files = [(file.relative_to(folder).as_posix(), file) for file in distinct]

    def read(split: str) -> Iterator[Pair]:
        for source, target in _pairs(split_files[split], layout):
            if combined is None or split_of(source) == split:
                yield Pair(target, source) if reverse else Pair(source, target)

    content = digest(readers.content_hash(files), str(reverse))
    return PairSource(name, {split: functools.partial(read, split) for split in split_files}, content)


def _files(folder: Path, split: str, layout: Layout) -> tuple[Path, ...]:
    """Two parallel files, or the parts of a table; empty when there are none."""
    for alias in ALIASES[split]:
        for first, second in itertools.product(*layout.sides):
            for between in ("", f".{first}-{second}", f".{second}-{first}"):
                names = [f"{alias}{between}.{side}" for side in (first, second)]
                pair = [file for name in names if (file := readers.find(folder, (name,))) is not None]
                if len(pair) == 2:
                    return tuple(pair)
        table = readers.find(folder, [alias + suffix for suffix in TABLES])
        parts = sorted([*folder.glob(f"{alias}-*.parquet"), *folder.glob(f"*/{alias}-*.parquet")])
        if table is not None or parts:
            return (table,) if table is not None else tuple(parts)
    return ()


def _pairs(files: Sequence[Path], layout: Layout) -> Iterator[tuple[str, str]]:
    if readers.kind(files[0]) in TABLES:
        for file in files:
            for record in _records(file):
                if layout.filter_column not in record or str(record[layout.filter_column]) == "1":
                    yield _side(record, layout.sides[0], file), _side(record, layout.sides[1], file)
        return
    for number, (source, target) in enumerate(itertools.zip_longest(*map(readers.lines, files)), 1):
        if source is None or target is None:
            raise ValueError(
                f"data.path: {files[0]} and {files[1]} differ in their number of lines (one ends before line {number})"
                "; download both again"
            )
        yield source.strip(), target.strip()


def _records(file: Path) -> Iterator[Mapping[str, Any]]:
    if readers.kind(file) != ".tsv":
        yield from readers.records(file)
        return
    with readers.open_text(file) as stream:
        yield from csv.DictReader(stream, delimiter="\t")


def _side(record: Mapping[str, Any], names: Sequence[str], file: Path) -> str:
    inner = record.get("translation")
    return readers.field_of(inner if isinstance(inner, dict) else record, names, file).strip()


def tatoeba(path: str, reverse: bool = False) -> PairSource:
    """Tatoeba's English-German pairs from deu.txt, split by the md5 of the source text, so that no source leaks.

    `reverse` is German to English. Training holds every pair; validation and test hold each source once, with all of
    its translations as references, in the order of the md5: the file is sorted by length, so that the first pairs of a
    split would be the shortest.
    Raises: ValueError when deu.txt (plain or compressed) is not in the folder or in tatoeba_en_de below it.
    """
    folder = Path(path).expanduser() if path else None
    folders = [folder, folder / "tatoeba_en_de"] if folder is not None else []
    candidates = [readers.find(each, ("deu.txt",)) for each in folders]
    file = next((candidate for candidate in candidates if candidate is not None), None)
    if file is None:
        raise missing_data("tatoeba", "deu.txt or deu.txt.xz", path, TATOEBA_WHERE)

    def pairs() -> Iterator[tuple[str, str]]:
        for number, line in enumerate(readers.lines(file), 1):
            sides = line.rstrip("\n").split("\t")
            if len(sides) < 2:
                raise ValueError(f"data.path: line {number} of {file} is not English, a tab, German; download it again")
            yield (sides[1], sides[0]) if reverse else (sides[0], sides[1])

    def read(split: str) -> Iterator[Pair]:
        split_pairs = ((source, target) for source, target in pairs() if split_of(source) == split)
        if split == "train":
            yield from itertools.starmap(Pair, split_pairs)
            return
        targets: dict[str, list[str]] = {}
        for source, target in split_pairs:
            targets.setdefault(source, []).append(target)
        for source in sorted(targets, key=md5_number):
            yield Pair(source, targets[source][0], tuple(dict.fromkeys(targets[source])))

    # "2" is the version of this order.
    content = digest(readers.content_hash([("deu.txt", file)]), str(reverse), "2")
    return PairSource("tatoeba", {split: functools.partial(read, split) for split in NAMES}, content)


def synthetic_pairs(name: str, reverse: bool, seed: int) -> PairSource:
    """Opens `dialects`, `dialects_reversed` (the harder one) or `number_words`.

    Raises: ValueError for dialects in reverse, since several sources share a target.
    """
    if name == "number_words":
        splits = pair_tasks.number_words(seed)
    elif reverse:
        raise ValueError("data.reverse: dialects are translated one way; pass --config.data.reverse=False")
    else:
        splits = pair_tasks.dialects(name == "dialects_reversed", seed)

    def swap(read: Callable[[], Iterator[Pair]]) -> Iterator[Pair]:
        return (Pair(pair.target, pair.source) for pair in read())

    if reverse:
        splits = {split: functools.partial(swap, read) for split, read in splits.items()}
    return PairSource(name, splits, digest(name, str(reverse), str(seed), "1"))


SOURCES: dict[str, Callable[[str, bool, int], PairSource]] = {
    "dialects": lambda path, reverse, seed: synthetic_pairs("dialects", reverse, seed),
    "dialects_reversed": lambda path, reverse, seed: synthetic_pairs("dialects_reversed", reverse, seed),
    "number_words": lambda path, reverse, seed: synthetic_pairs("number_words", reverse, seed),
    "tatoeba": lambda path, reverse, seed: tatoeba(path, reverse),
    **{name: lambda path, reverse, seed, name=name: published_pairs(name, path, reverse) for name in LAYOUTS},
}


def open_pairs(name: str, path: str, reverse: bool = False, seed: int = 0) -> PairSource:
    """Opens `data.source`.

    Raises: ValueError naming the field, the missing file and its origin.
    """
    if name not in SOURCES:
        raise ValueError(f"data.source: unknown {name!r}; known pairs: {', '.join(sorted(SOURCES))}")
    return SOURCES[name](path, reverse, seed)
