"""TFDS builder of packed examples: prepared once per recipe, stored as ArrayRecord, and published atomically."""

import contextlib
import dataclasses
import io
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from diffusion.data.packing import Block, Statistics

STATISTICS_FILE = "statistics.json"
BuildSplit = Callable[[Statistics], Iterator[Block]]


class PackedExamples(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One row per example, with the columns of the blocks: "tokens" [length], and others such as "weights" or "label".

    Rows keep the order of the source or, when `shuffled`, follow TFDS's fixed order by the hash of their number.
    """

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # TFDS looks for download checksums beside the code, and needs importlib_resources for it

    def __init__(self, *, blocks: Mapping[str, Iterator[Block]], columns: Block, shuffled: bool, **kwargs: Any):
        self.blocks, self.columns, self.shuffled = blocks, columns, shuffled
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        # encoding="bytes": one memory copy per row, where the default writes every id as a varint.
        features = {
            name: tfds.features.Tensor(shape=array.shape[1:], dtype=array.dtype.type, encoding="bytes")
            if array.ndim > 1
            else tfds.features.Scalar(array.dtype.type)
            for name, array in self.columns.items()
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=not self.shuffled
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(blocks) for split, blocks in self.blocks.items()}

    def _generate_examples(self, blocks: Iterator[Block]) -> Iterator[tuple[int, dict[str, Any]]]:
        rows = (dict(zip(block, row, strict=True)) for block in blocks for row in zip(*block.values(), strict=True))
        return enumerate(rows)


def is_prepared(folder: Path) -> bool:
    """Whether the folder holds a complete preparation, whose statistics are written last, before the final rename."""
    return (folder / STATISTICS_FILE).is_file()


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
        split, generator = next(iter(blocks.items()))
        columns = next(generator)
        blocks[split] = itertools.chain([columns], generator)
        builder = PackedExamples(
            blocks=blocks, columns=columns, shuffled=shuffled, data_dir=str(work), file_format="array_record"
        )
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS would announce a download, and there is none
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
        counts = {split: dataclasses.asdict(values) for split, values in statistics.items()}
        record = {"recipe": dict(recipe), "splits": counts}
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


def open_prepared(folder: Path) -> tuple[dict[str, Any], dict[str, Statistics]]:
    """The random-access data source and the statistics of every split that has examples."""
    record = json.loads((folder / STATISTICS_FILE).read_text(encoding="utf-8"))
    builder = PackedExamples.name
    reader = tfds.builder_from_directory(folder / builder / str(PackedExamples.VERSION))
    # TFDS's decorators hide the arguments of `as_data_source`.
    sources = {split: reader.as_data_source(split) for split in reader.info.splits}  # pyright: ignore[reportCallIssue]
    statistics = {split: Statistics(**values) for split, values in record["splits"].items()}
    return sources, {split: statistics[split] for split in sources}
