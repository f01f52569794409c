"""Sources of pairs: translations, paraphrases, simplifications and summaries, out of files as they are published."""

import csv
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion.data import pair_tasks, readers
from diffusion.data.pair_tasks import Pair
from diffusion.data.splits import NAMES, place, split_of
from diffusion.data.tokenizers import digest
from diffusion.data.types import missing

ALIASES = {"train": ("train",), "validation": ("valid", "validation", "dev"), "test": ("test",)}
TABLES = (".jsonl", ".tsv", ".csv", ".parquet")
TATOEBA_WHERE = "https://www.manythings.org/anki, deu-eng.zip"


@dataclasses.dataclass(frozen=True)
class PairSource:
    """Pairs per split: `splits[split]()` starts a new pass over them, always in the same order."""

    name: str
    splits: Mapping[str, Callable[[], Iterator[Pair]]]
    content_hash: str


@dataclasses.dataclass(frozen=True)
class Published:
    """How a data set lies in a folder: two files a split, line i beside line i, or one table a split.

    `sides` are the names of source and target: as ends of file names (train.de, train.en, train.de-en.de), and as
    columns of tables, where they may lie inside a column "translation".
    """

    sides: tuple[tuple[str, ...], tuple[str, ...]]
    where: str
    whole: tuple[str, ...] = ()  # one table of everything, split by the md5 of the source
    only: str = ""  # a column that must be 1


PUBLISHED = {
    "iwslt14": Published((("de",), ("en",)), "fairseq's examples/translation/prepare-iwslt14.sh"),
    "wmt14": Published((("en",), ("de",)), "https://huggingface.co/datasets/wmt/wmt14, or Fully-NAT's package"),
    "wmt16": Published((("ro",), ("en",)), "https://huggingface.co/datasets/wmt/wmt16, or Fully-NAT's package"),
    "qqp": Published(
        (("src", "question1", "sentence1"), ("trg", "question2", "sentence2")),
        "DiffuSeq's release (train.jsonl, valid.jsonl, test.jsonl) or quora_duplicate_questions.tsv",
        whole=("quora_duplicate_questions.tsv", "questions.csv"),
        only="is_duplicate",
    ),
    "wiki_auto": Published(
        (("src", "normal_sentence", "complex"), ("trg", "simple_sentence", "simple")),
        "DiffuSeq's release, or https://huggingface.co/datasets/wiki_auto (auto_acl)",
    ),
    "gigaword": Published(
        (("document", "src", "article.txt", "article.filter.txt"), ("summary", "tgt", "title.txt", "title.filter.txt")),
        "https://huggingface.co/datasets/gigaword, or the files of harvardnlp/sent-summary",
    ),
}


def published(name: str, path: str, reverse: bool = False) -> PairSource:
    """One of PUBLISHED from the folder `path`, plain or compressed; at least its training or its test split.

    `reverse` swaps source and target.
    Raises: ValueError naming what is missing, and files whose numbers of lines differ.
    """
    facts = PUBLISHED[name]
    folder = Path(path).expanduser()
    found: dict[str, tuple[Path, ...]] = {}
    if path and folder.is_dir():
        found = {split: files for split in NAMES if (files := _files(folder, split, facts))}
    whole = readers.find(folder, facts.whole) if path and facts.whole and not found else None
    if whole is not None:
        found = dict.fromkeys(NAMES, (whole,))
    if not {"train", "test"} & set(found):
        first, second = facts.sides[0][0], facts.sides[1][0]
        expected = f"train.{first} and train.{second}, or train.jsonl, .tsv, .csv or .parquet (and valid, test)"
        raise missing(name, expected, path, facts.where)
    files = [(file.relative_to(folder).as_posix(), file) for file in sorted(set(itertools.chain(*found.values())))]

    def read(split: str) -> Iterator[Pair]:
        for source, target in _pairs(found[split], facts):
            if whole is None or split_of(source) == split:
                yield Pair(target, source) if reverse else Pair(source, target)

    content = digest(readers.content_hash(files), str(reverse))
    return PairSource(name, {split: functools.partial(read, split) for split in found}, content)


def _files(folder: Path, split: str, facts: Published) -> tuple[Path, ...]:
    """Two texts, or the one or more parts of a table."""
    for alias in ALIASES[split]:
        for first, second in itertools.product(*facts.sides):
            for between in ("", f".{first}-{second}", f".{second}-{first}"):
                names = [f"{alias}{between}.{side}" for side in (first, second)]
                pair = [file for name in names if (file := readers.find(folder, (name,))) is not None]
                if len(pair) == 2:
                    return tuple(pair)
        table = readers.find(folder, [alias + layout for layout in TABLES])
        parts = sorted([*folder.glob(f"{alias}-*.parquet"), *folder.glob(f"*/{alias}-*.parquet")])
        if table is not None or parts:
            return (table,) if table is not None else tuple(parts)
    return ()


def _pairs(files: Sequence[Path], facts: Published) -> Iterator[tuple[str, str]]:
    if readers.kind(files[0]) in TABLES:
        for file in files:
            for record in _records(file):
                if facts.only not in record or str(record[facts.only]) == "1":
                    yield _side(record, facts.sides[0], file), _side(record, facts.sides[1], file)
        return
    for number, (source, target) in enumerate(itertools.zip_longest(*map(readers.lines, files)), 1):
        if source is None or target is None:
            raise ValueError(
                f"data.path: {files[0]} and {files[1]} differ in their number of lines (one ends before line {number})"
                "; get both anew"
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
    """Tatoeba's English-German pairs from deu.txt, split by the md5 of the source's text, so that no source leaks.

    `reverse` is German to English. Training holds every pair, validation and test every source once, with all of its
    translations for references, in the order of the md5: the file is sorted by length, and what takes the first of a
    split would see the shortest alone.
    Raises: ValueError when deu.txt (plain or compressed) is not in the folder or in tatoeba_en_de below it.
    """
    folder = Path(path).expanduser() if path else None
    places = [folder, folder / "tatoeba_en_de"] if folder is not None else []
    found = [readers.find(place, ("deu.txt",)) for place in places]
    file = next((each for each in found if each is not None), None)
    if file is None:
        raise missing("tatoeba", "deu.txt or deu.txt.xz", path, TATOEBA_WHERE)

    def pairs() -> Iterator[tuple[str, str]]:
        for number, line in enumerate(readers.lines(file), 1):
            sides = line.rstrip("\n").split("\t")
            if len(sides) < 2:
                raise ValueError(f"data.path: line {number} of {file} is not English, a tab, German; get it anew")
            yield (sides[1], sides[0]) if reverse else (sides[0], sides[1])

    def read(split: str) -> Iterator[Pair]:
        mine = ((source, target) for source, target in pairs() if split_of(source) == split)
        if split == "train":
            yield from itertools.starmap(Pair, mine)
            return
        grouped: dict[str, list[str]] = {}
        for source, target in mine:
            grouped.setdefault(source, []).append(target)
        for source in sorted(grouped, key=place):
            yield Pair(source, grouped[source][0], tuple(dict.fromkeys(grouped[source])))

    # "2": held-out sources in the order of their hash; it was the file's.
    content = digest(readers.content_hash([("deu.txt", file)]), str(reverse), "2")
    return PairSource("tatoeba", {split: functools.partial(read, split) for split in NAMES}, content)


def made_up(name: str, reverse: bool, seed: int) -> PairSource:
    """`dialects`, `dialects_reversed` (the harder one) or `number_words`.

    Raises: ValueError for dialects in reverse: their targets do not have one source.
    """
    if name == "number_words":
        splits = pair_tasks.number_words(seed)
    elif reverse:
        raise ValueError("data.reverse: dialects are translated one way; pass --config.data.reverse=False")
    else:
        splits = pair_tasks.dialects(name == "dialects_reversed", seed)

    def turned(read: Callable[[], Iterator[Pair]]) -> Iterator[Pair]:
        return (Pair(pair.target, pair.source) for pair in read())

    if reverse:
        splits = {split: functools.partial(turned, read) for split, read in splits.items()}
    return PairSource(name, splits, digest(name, str(reverse), str(seed), "1"))


SOURCES: dict[str, Callable[[str, bool, int], PairSource]] = {
    "dialects": lambda path, reverse, seed: made_up("dialects", reverse, seed),
    "dialects_reversed": lambda path, reverse, seed: made_up("dialects_reversed", reverse, seed),
    "number_words": lambda path, reverse, seed: made_up("number_words", reverse, seed),
    "tatoeba": lambda path, reverse, seed: tatoeba(path, reverse),
    **{name: lambda path, reverse, seed, name=name: published(name, path, reverse) for name in PUBLISHED},
}


def open_pairs(name: str, path: str, reverse: bool = False, seed: int = 0) -> PairSource:
    """Opens `data.source`. Raises: ValueError naming the field, the file that is missing and where to get it."""
    if name not in SOURCES:
        raise ValueError(f"data.source: unknown {name!r}; known pairs: {', '.join(sorted(SOURCES))}")
    return SOURCES[name](path, reverse, seed)
