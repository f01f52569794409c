"""Pairs of texts from files: named data sets, and a user's own in two files of lines, or in tables of any names."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from diffusion.data import data_files, readers, splits, tables
from diffusion.data.datasets import Named, Texts, examples, file_texts, table_texts, translation_of
from diffusion.data.settings import DataSettings
from diffusion.data.tokenizers import digest
from diffusion.data.types import Pair, Source, missing_data

OWN = "pair_files"
FIELDS = ("source_field", "target_field")


def tab_rows(file: Path) -> Iterator[readers.Row]:
    """Columns, named by their number, of lines with at least two of them; quotes are text."""
    for number, line in enumerate(readers.lines(file), 1):
        columns = line.split("\t")
        if len(columns) < 2:
            raise ValueError(f"data.path: line {number} of {file} is not English, a tab, German; download it again")
        yield f"line {number} of {file}", {str(column): text for column, text in enumerate(columns, 1)}


PAIRS: dict[str, Named] = {
    "iwslt14": Named((("de",), ("en",)), "fairseq's examples/translation/prepare-iwslt14.sh"),
    "wmt14": Named((("en",), ("de",)), "https://huggingface.co/datasets/wmt/wmt14, or Fully-NAT's package"),
    "wmt16": Named((("ro",), ("en",)), "https://huggingface.co/datasets/wmt/wmt16, or Fully-NAT's package"),
    "qqp": Named(
        (("src", "question1", "sentence1"), ("trg", "question2", "sentence2")),
        "DiffuSeq's release (train.jsonl, valid.jsonl, test.jsonl) or quora_duplicate_questions.tsv",
        combined=("quora_duplicate_questions.tsv", "questions.csv"),
        filter_field="is_duplicate",
    ),
    "wiki_auto": Named(
        (("src", "normal_sentence", "complex"), ("trg", "simple_sentence", "simple")),
        "DiffuSeq's release, or https://huggingface.co/datasets/wiki_auto (auto_acl)",
    ),
    "gigaword": Named(
        (("document", "src", "article.txt", "article.filter.txt"), ("summary", "tgt", "title.txt", "title.filter.txt")),
        "https://huggingface.co/datasets/gigaword, or the files of harvardnlp/sent-summary",
    ),
    # English, German, and an attribution, in the order of their length.
    "tatoeba": Named(
        (("1",), ("2",)),
        "https://www.manythings.org/anki, deu-eng.zip",
        "deu.txt or deu.txt.xz",
        rows=tab_rows,
        combined=("deu.txt", "tatoeba_en_de/deu.txt"),
    ),
}


def pairs(settings: DataSettings) -> Source:
    """Opens one of PAIRS, or a user's own pairs, at `data.path` or on the hub; `data.reverse` swaps source and target.

    Files of splits are read as they are. Pairs in one place are split by source; see `by_source`. Of a user's files of
    splits a missing validation or test split is the other one.
    Raises: ValueError when there is neither a training nor a test split.
    """
    name, own = settings.source, settings.source == OWN
    named = of_fields(settings) if own else PAIRS[name]
    reads, content = examples(named, settings)
    whole = None if reads else whole_read(named, settings)
    if own and reads.keys() == {"train"}:
        whole = reads["train"], content
    if whole is not None:
        read, content = whole
        documents = {split: functools.partial(by_source, read, settings, split) for split in splits.NAMES}
    elif not {"train", "test"} & reads.keys():
        (first, *_), (second, *_) = named.fields
        expected = f"train.{first} and train.{second}, or train.jsonl, .tsv, .csv or .parquet (and valid, test)"
        if own:
            found = ", ".join(map(str, data_files.visible_below(settings.path)[:4]))
            remedy = "pass their suffixes as --config.data.source_field and target_field, or two files as A,B"
            raise ValueError(f"data.path: {settings.path!r} has {found or 'no files'}, not {expected}; {remedy}")
        raise missing_data(name, named.expected or expected, settings.path, named.where)
    else:
        held_out = [split for split in ("validation", "test") if split in reads]
        for split in ("validation", "test") if own and held_out else ():
            reads.setdefault(split, reads[held_out[0]])
        documents = {split: functools.partial(sides, read, settings) for split, read in reads.items()}
    # "2" is the version of the order of a split by source.
    keys = [content, str(settings.reverse), *(["2"] if whole is not None else [])]
    keys += [getattr(settings, field) for field in FIELDS if own]
    return Source(name, documents, digest(*keys))


def of_fields(settings: DataSettings) -> Named:
    """The layout of a user's pairs: files or columns of the names `data.source_field` and `data.target_field`."""
    names = [getattr(settings, field) for field in FIELDS]
    numbered = all(name.isdecimal() for name in names)

    def rows(file: Path) -> Iterator[readers.Row]:
        kind = data_files.kind(file)
        if kind in (".jsonl", ".json", ".parquet", ".arrow"):
            table = tables.rows(file)
        else:
            table = readers.separated_rows(file, "," if kind == ".csv" else "\t", header=not numbered)
        for place, row in table:
            row = translation_of(row)
            for field, name in zip(FIELDS, names, strict=True):
                if name not in row:
                    remedy = "or the numbers of both columns where there is no header"
                    found = f"{place} has no {name!r} but {', '.join(map(repr, row))}"
                    raise ValueError(f"data.{field}: {found}; pass --config.data.{field}=NAME, {remedy}")
            yield place, row

    return Named(tuple((name,) for name in names), "your own", rows=rows)


def whole_read(named: Named, settings: DataSettings) -> tuple[Callable[[], Iterator[Texts]], str] | None:
    """Reader of all pairs in one place, two files of lines or one table, and a hash of its content."""
    if settings.source == OWN:
        files = [Path(part).expanduser() for part in data_files.paths_of(settings.path)]
        missing = [file for file in files if not file.is_file()]
        if len(files) > 1 and (missing or len(files) > 2):
            problem = f"{missing[0]} is not a file" if missing else f"{len(files)} files"
            raise ValueError(f"data.path: {problem}; pass --config.data.path=A,B with two files of lines")
        files = [] if missing else files
    else:
        files = [table] if (table := data_files.find(settings.path, named.combined)) is not None else []
    if not files:
        return None
    content = data_files.content_hash([(data_files.plain_name(file), file) for file in files])
    if len(files) == 2:
        return functools.partial(file_texts, files, named), content
    return functools.partial(table_texts, functools.partial(named.rows, files[0]), named), content


def sides(read: Callable[[], Iterator[Texts]], settings: DataSettings) -> Iterator[Pair]:
    """Pairs without white space at their ends, in the direction of `data.reverse`."""
    for source, target in read():
        pair = Pair(source.strip(), target.strip())
        yield Pair(pair.target, pair.source) if settings.reverse else pair


def by_source(read: Callable[[], Iterator[Texts]], settings: DataSettings, split: str) -> Iterator[Pair]:
    """Pairs of one split by the md5 of the source, so that no source is in two.

    Training holds every pair; validation and test hold each source once, with all of its targets as references, in the
    order of the md5: files are often sorted by length, so that the first pairs of a split would be the shortest. Pairs
    that lack a side come first.
    """
    targets: dict[str, list[str]] = {}
    for pair in sides(read, settings):
        if splits.split_of(pair.source) != split:
            continue
        if split == "train" or not (pair.source and pair.target):
            yield pair
        else:
            targets.setdefault(pair.source, []).append(pair.target)
    for source in sorted(targets, key=splits.md5_number):
        yield Pair(source, targets[source][0], tuple(dict.fromkeys(targets[source])))
