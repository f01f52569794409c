"""Tables of data sets: files of rows, folders of Parquet files, and data sets of the Hugging Face hub.

Parquet, Arrow and the hub are read by Hugging Face `datasets`, which is imported only where it reads. JSON lines and
separated values are not, because it guesses: texts that are dates become dates, short rows are filled, and quotes that
are text swallow the rows that follow.
"""

import functools
import itertools
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from diffusion.data import data_files, readers
from diffusion.data.readers import Row
from diffusion.data.settings import DataSettings
from diffusion.data.tokenizers import digest

HUB = "hf://"
FILE_SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(("validation", "valid", "val", "dev"), "validation")
FILE_SPLIT = re.compile(rf"(?:^|[/_.-])({'|'.join(FILE_SPLITS)})(?=[/_.-])")

ReadRows = Callable[[], Iterator[Row]]


@functools.cache
def library() -> Any:
    """Hugging Face `datasets` without progress bars, messages and telemetry, imported only where it reads."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    return datasets


def library_rows(path: Path) -> Iterator[Row]:
    """Yields the rows of a Parquet or Arrow file, of which one batch is in memory."""
    import pyarrow

    try:
        with tempfile.TemporaryDirectory() as cache:  # a stream leaves nothing but a lock in it
            options = {"split": "train", "streaming": True, "cache_dir": cache}
            table = library().load_dataset(data_files.kind(path)[1:], data_files=[str(path)], **options)
        yield from numbered(table, str(path))
    except (pyarrow.ArrowException, OSError) as error:
        raise damaged(path, error) from None


def row_count(path: Path) -> int:
    """Number of rows of a Parquet file, which is in its metadata."""
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path).metadata.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> ValueError:
    """The error for a Parquet file that the library cannot read."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ValueError(f"data.path: {path} is damaged or not a Parquet file ({reason}); download it again")


def numbered(table: Any, name: str) -> Iterator[Row]:
    """Yields the rows of a table of the library, which are read in batches."""
    batches = table.iter(batch_size=256)
    rows = (dict(zip(batch, row, strict=True)) for batch in batches for row in zip(*batch.values(), strict=True))
    return ((f"row {number} of {name}", row) for number, row in enumerate(rows))


FORMATS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": readers.json_rows,
    ".tsv": functools.partial(readers.separated_rows, delimiter="\t"),
    ".csv": readers.separated_rows,
    ".parquet": library_rows,
    ".arrow": library_rows,
}


def rows(*paths: Path) -> Iterator[Row]:
    """Yields the rows of tables in one of FORMATS, else of JSON lines."""
    return itertools.chain.from_iterable(FORMATS.get(data_files.kind(path), readers.json_rows)(path) for path in paths)


def split_rows(settings: DataSettings) -> tuple[dict[str, ReadRows], str]:
    """Readers of the rows of each split, and a hash of their content: of Parquet files below a folder, or of the hub.

    `data.path` is hf://OWNER/NAME or hf://OWNER/NAME:CONFIGURATION, which is downloaded into the cache the first time,
    or a folder whose files or folders name the split. There are no readers where there are no such files.
    Raises: ValueError when the hub is not reached, or files of one split are in several folders.
    """
    if settings.path.startswith(HUB):
        return hub_rows(settings)
    root = Path(settings.path).expanduser()
    files = data_files.files_below(settings.path, "*.parquet")
    names = [file.relative_to(root).as_posix() for file in files]
    by_split: dict[str, list[Path]] = {}
    for file, split in zip(files, file_splits(names), strict=True):
        by_split.setdefault(split or "train", []).append(file)
    for split, group in by_split.items():
        folders = sorted({str(file.parent) for file in group})
        if len(folders) > 1:
            raise ValueError(f"data.path: the {split} split is in {folders[0]} and in {folders[1]}; pass one of them")
    content = data_files.content_hash(list(zip(names, files, strict=True)))
    return {split: functools.partial(rows, *group) for split, group in by_split.items()}, content


def hub_rows(settings: DataSettings) -> tuple[dict[str, ReadRows], str]:
    """Readers and content of a data set of the hub; see `split_rows`."""
    name, _, configuration = settings.path.removeprefix(HUB).partition(":")
    try:
        cache = str(settings.cache / "hub")
        splits = library().load_dataset(name, configuration or None, cache_dir=cache)
    except Exception as error:  # of the library and of its network clients
        reason = str(error).splitlines()[0]
        raise ValueError(f"data.path: cannot load {settings.path!r} ({reason}); pass a folder of its files") from None

    def read(split: str) -> Iterator[Row]:
        return numbered(splits[split], f"{settings.path} ({split})")

    content = digest(*(f"{split} {table._fingerprint}" for split, table in splits.items()))
    return {split: functools.partial(read, split) for split in splits}, content


def file_splits(names: Sequence[str]) -> list[str]:
    """Split that each path names, or "" for all paths where none names validation or test.

    Raises: ValueError when some name a split and others do not, or none names train.
    """
    matches = [FILE_SPLIT.search(name) for name in names]
    split_names = [FILE_SPLITS[match.group(1)] if match else "" for match in matches]
    if not {"validation", "test"} & set(split_names):
        return [""] * len(names)
    if "" in split_names:
        unnamed = names[split_names.index("")]
        raise ValueError(f"data.path: {unnamed} does not name its split (train, validation, test), as other files do")
    if "train" not in split_names:
        raise ValueError(f"data.path: no file names the train split; there are {', '.join(names[:5])}")
    return split_names


def prepared(folder: Path, name: str, feature: str) -> dict[str, Callable[[], Iterator[str]]]:
    """Texts of each split of the TFDS data set `name`, prepared in the folder as ArrayRecord, without TensorFlow.

    Raises: ValueError when it is in another format, or lacks the feature.
    """
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(folder)  # TFDS's decorators hide the arguments of its methods
    if builder.info.file_format is None or builder.info.file_format.value != "array_record":
        raise ValueError(f"data.path: {folder} is not ArrayRecord; prepare {name} with file_format=array_record")
    if feature not in builder.info.features:
        raise ValueError(f"data.path: {folder} has no feature {feature}; prepare TFDS's {name}")

    def read(split: str) -> Iterator[str]:
        values = (row[feature] for row in builder.as_data_source(split))
        return (value.decode() if isinstance(value, bytes) else str(value) for value in values)

    return {split: functools.partial(read, split) for split in builder.info.splits}
