"""Packed examples in the format of TFDS, as ArrayRecord: prepared once per recipe, and published atomically."""

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath, epy

from diffusion.data.packing import Block, Statistics
from diffusion.data.tokenizers import digest, record_digest

with epy.lazy_imports():
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import example_serializer, hashing

STATISTICS_FILE = "statistics.json"
NAME, VERSION = "packed_examples", "1.0.0"
SHARD_BYTES = 2**30
BuildSplit = Callable[[Statistics], Iterator[Block]]


def features_of(columns: Block) -> "tfds.features.FeaturesDict":
    """Features of a row with the columns of a block: "tokens" [length], and others such as "weights" or "label"."""
    # encoding="bytes": one memory copy per row, where the default writes every id as a varint.
    return tfds.features.FeaturesDict(
        {
            name: tfds.features.Tensor(shape=array.shape[1:], dtype=array.dtype.type, encoding="bytes")
            if array.ndim > 1
            else tfds.features.Scalar(array.dtype.type)
            for name, array in columns.items()
        }
    )


def serialized(blocks: Iterable[Block], features: "tfds.features.FeaturesDict") -> Iterator[bytes]:
    """Rows of blocks as TFDS stores them."""
    specs: Any = features.get_serialized_info()
    serializer = example_serializer.ExampleSerializer(specs)

    def one(row: Mapping[str, Any]) -> bytes:
        return serializer.serialize_example(features.encode_example(dict(row)))

    for block in blocks:
        # Columns of one size have their place in a record, where TFDS needs as long for a row as a tokenizer. The place
        # is that of random bytes, which short columns may share with the rest of a record.
        if all(column.ndim > 1 for column in block.values()):
            marks = {name: marked(column, number) for number, (name, column) in enumerate(block.items())}
            record = one(marks)
            if all(record.count(mark.tobytes()) == 1 for mark in marks.values()):
                yield from with_columns(record, marks, block)
                continue
        yield from (one(dict(zip(block, row, strict=True))) for row in zip(*block.values(), strict=True))


def with_columns(record: bytes, marks: Block, block: Block) -> Iterator[bytes]:
    """Copies of a record, one for each row of a block, with the columns of the row in place of the marks."""
    records = np.tile(np.frombuffer(record, np.uint8), (len(block["tokens"]), 1))
    for name, column in block.items():
        start, size = record.index(marks[name].tobytes()), marks[name].nbytes
        records[:, start : start + size] = np.ascontiguousarray(column).view(np.uint8).reshape(len(column), size)
    return map(bytes, records)


def marked(column: np.ndarray, number: int) -> np.ndarray:
    """A row of a column of random bytes."""
    random = np.random.default_rng(number).bytes(column[0].nbytes)
    return np.frombuffer(random, column.dtype).reshape(column.shape[1:])


def write_shards(folder: Path, split: str, records: Iterator[bytes]) -> "tfds.core.SplitInfo":
    """Writes the records of a split in order, as they come."""
    files, lengths, total = [], [], 0
    for record in records:
        file = folder / f"{split}-{len(files)}.partial"
        writer, size, count = ArrayRecordWriter(str(file), "group_size:1"), 0, 0
        for each in itertools.chain([record], records):
            writer.write(each)
            size, count = size + len(each), count + 1
            if size >= SHARD_BYTES:
                break
        writer.close()
        files.append(file)
        lengths.append(count)
        total += size
    template = tfds.core.ShardedFileTemplate(
        data_dir=epath.Path(folder), dataset_name=NAME, split=split, filetype_suffix="array_record"
    )
    for number, file in enumerate(files):
        file.rename(template.sharded_filepath(shard_index=number, num_shards=len(files)))
    return tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=total, filename_template=template)


def shuffle(folder: Path, info: "tfds.core.SplitInfo") -> "tfds.core.SplitInfo":
    """Writes a split again in TFDS's fixed order, by the hash of the number of each row."""
    files = [str(folder / name) for name in sorted(info.filenames)]
    hasher = hashing.Hasher(info.name)
    order = sorted(range(info.num_examples), key=hasher.hash_key)
    with tempfile.TemporaryDirectory(dir=folder) as other, ArrayRecordDataSource(files) as source:
        records = (source[number] for number in order)
        shuffled = write_shards(Path(other), info.name, records)
        for file in files:
            os.remove(file)
        for name in shuffled.filenames:
            os.replace(Path(other) / name, folder / name)
    return shuffled.replace(filename_template=info.filename_template)


def read_record(folder: Path) -> dict[str, Any]:
    """What a complete preparation says of itself, written last before the final rename.

    It is empty where there is none, or where it or a description of the shards is not what was written, or a shard has
    not its size; records in shards have checksums of their own.
    """
    try:
        record = json.loads((folder / STATISTICS_FILE).read_text(encoding="utf-8"))
        # Preparations of an earlier version have no sizes and hashes.
        if record.get("sha256", own := record_digest(record)) != own:
            return {}
        for name, size in record.get("files", {}).items():
            if (folder / name).stat().st_size != size:
                return {}
        for name, known in record.get("hashes", {}).items():
            if digest((folder / name).read_text(encoding="utf-8")) != known:
                return {}
        return record
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError):
        return {}


def is_prepared(folder: Path) -> bool:
    """Whether the folder holds a complete preparation."""
    return bool(read_record(folder))


def started(
    recipe: Mapping[str, Any], builds: Mapping[str, BuildSplit]
) -> tuple[dict[str, Iterator[Block]], dict[str, Statistics]]:
    """Blocks of each split and the statistics that they fill; omits splits without examples.

    Raises: ValueError when the train split, or every split, has no example.
    """
    blocks: dict[str, Iterator[Block]] = {}
    statistics = {split: Statistics() for split in builds}
    for split, build in builds.items():
        generator = build(statistics[split])
        first = next(generator, None)
        if first is not None:
            blocks[split] = itertools.chain([first], generator)
    needed = "train" if "train" in builds else next(iter(builds))
    if not blocks or ("train" in builds and "train" not in blocks):
        raise ValueError(
            f"data.length: the {needed} split of {recipe['source']} has no example of {recipe['length']} tokens; pass "
            "another --config.data.length, or more data"
        )
    return blocks, {split: statistics[split] for split in blocks}


def in_memory(
    recipe: Mapping[str, Any], builds: Mapping[str, BuildSplit], shuffled: bool = False
) -> tuple[dict[str, Block], dict[str, Statistics]]:
    """All examples of each split as one block, in the order of the source or, when `shuffled`, in another fixed one."""
    generators, statistics = started(recipe, builds)
    blocks = {}
    for split, generator in generators.items():
        parts = list(generator)
        order = np.random.default_rng(0).permutation(statistics[split].examples) if shuffled else slice(None)
        blocks[split] = {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}
    return blocks, statistics


def prepare(folder: Path, recipe: Mapping[str, Any], builds: Mapping[str, BuildSplit], shuffled: bool = False) -> None:
    """Writes the examples of every split into `folder`, all or nothing; omits splits without examples.

    Examples are written to a temporary folder beside `folder`, which is renamed at the end: an interrupted preparation
    is never mistaken for a complete one, and two processes may prepare the same recipe at once (the first one wins).
    Raises: ValueError when the train split has no example.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".incomplete", dir=folder.parent))
    except OSError as error:
        raise ValueError(
            f"data.cache_dir: cannot write to {str(folder.parent)!r} ({error.strerror}); pass a writable folder"
        ) from None
    try:
        blocks, statistics = started(recipe, builds)
        data = work / NAME / VERSION
        data.mkdir(parents=True)
        infos, features = [], None
        for split, generator in blocks.items():
            columns = next(generator)
            features = features or features_of(columns)
            info = write_shards(data, split, serialized(itertools.chain([columns], generator), features))
            infos.append(shuffle(data, info) if shuffled else info)
        tfds.folder_dataset.write_metadata(
            data_dir=data, features=features, split_infos=infos, disable_shuffling=not shuffled, check_data=False
        )
        counts = {split: dataclasses.asdict(values) for split, values in statistics.items()}
        sizes = {file.relative_to(work).as_posix(): file.stat().st_size for file in sorted(data.iterdir())}
        texts = {name: digest((work / name).read_text(encoding="utf-8")) for name in sizes if name.endswith(".json")}
        record = {"recipe": dict(recipe), "splits": counts, "files": sizes, "hashes": texts}
        record["sha256"] = record_digest(record)
        (work / STATISTICS_FILE).write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
        _publish(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(work: Path, folder: Path) -> None:
    if folder.exists() and not is_prepared(folder):
        shutil.rmtree(folder, ignore_errors=True)  # modified from outside: no preparation leaves such a folder
    try:
        os.replace(work, folder)
    except OSError:
        if not is_prepared(folder):  # otherwise another process has just finished the same recipe
            raise


def _remove_abandoned(folder: Path, age: float = 24 * 3600) -> None:
    for work in folder.parent.glob(f".{folder.name}.*.incomplete"):
        with contextlib.suppress(OSError):
            if time.time() - work.stat().st_mtime > age:
                shutil.rmtree(work, ignore_errors=True)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Random access to the examples of a split of a preparation."""

    source: Any  # of TFDS
    folder: Path

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Reads examples.

        Raises: ValueError, with what to do, for examples that cannot be read.
        """
        try:
            return self.source.__getitems__(indices)
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
            raise ValueError(
                f"data: examples in {self.folder} are damaged ({reason}); delete {self.folder} and give the command "
                "again, which packs them again"
            ) from error


def open_prepared(folder: Path) -> tuple[dict[str, Any], dict[str, Statistics]]:
    """The random-access data source and the statistics of every split that has examples.

    Raises: ValueError for a folder that is not complete.
    """
    record = read_record(folder)
    if not record:
        raise ValueError(f"data: {folder} was changed while it was read; give the command again, which packs it again")
    reader = tfds.builder_from_directory(folder / NAME / VERSION)
    # TFDS's decorators hide the arguments of `as_data_source`.
    sources = {split: Prepared(reader.as_data_source(split), folder) for split in reader.info.splits}  # pyright: ignore[reportCallIssue]
    statistics = {split: Statistics(**values) for split, values in record["splits"].items()}
    return sources, {split: statistics[split] for split in sources}
