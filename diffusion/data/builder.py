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

from diffusion.data.packing import PackedBlock, Statistics

STATISTICS_FILE = "statistics.json"
BuildSplit = Callable[[Statistics], Iterator[PackedBlock]]


class PackedExamples(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Rows {"tokens": [length]}, with {"weights": uint8 [length]} when padded and {"label": int32 []} when labeled.

    Rows keep the order of the source or, when `shuffled`, follow TFDS's fixed order by the hash of their number.
    """

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # TFDS looks for download checksums beside the code, and needs importlib_resources for it

    def __init__(
        self,
        *,
        length: int,
        largest_id: int,
        padded: bool,
        blocks: Mapping[str, Iterator[PackedBlock]],
        labeled: bool,
        shuffled: bool,
        **kwargs: Any,
    ):
        self.length, self.padded, self.blocks, self.labeled, self.shuffled = length, padded, blocks, labeled, shuffled
        self.dtype = np.uint8 if largest_id < 2**8 else np.uint16 if largest_id < 2**16 else np.int32
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        # encoding="bytes": one memory copy per row, where the default writes every id as a varint.
        def feature(dtype: type) -> tfds.features.Tensor:
            return tfds.features.Tensor(shape=(self.length,), dtype=dtype, encoding="bytes")

        features = {"tokens": feature(self.dtype)} | ({"weights": feature(np.uint8)} if self.padded else {})
        features |= {"label": tfds.features.Scalar(np.int32)} if self.labeled else {}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=not self.shuffled
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, np.ndarray]]]]:
        return {split: self._generate_examples(blocks) for split, blocks in self.blocks.items()}

    def _generate_examples(self, blocks: Iterator[PackedBlock]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        key = 0
        for block in blocks:
            tokens = block.tokens.astype(self.dtype)
            for row in range(len(tokens)):
                example = {"tokens": tokens[row]}
                if self.padded:
                    assert block.weights is not None
                    example["weights"] = block.weights[row]
                if self.labeled:
                    assert block.labels is not None
                    example["label"] = np.int32(block.labels[row])
                yield key, example
                key += 1


def is_prepared(folder: Path) -> bool:
    """Whether the folder holds a complete preparation, whose statistics are written last, before the final rename."""
    return (folder / STATISTICS_FILE).is_file()


def prepare(
    folder: Path,
    recipe: Mapping[str, Any],
    splits: Mapping[str, BuildSplit],
    *,
    length: int,
    largest_id: int,
    padded: bool,
    labeled: bool = False,
    shuffled: bool = False,
) -> None:
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
        statistics = {split: Statistics() for split in splits}
        blocks: dict[str, Iterator[PackedBlock]] = {}
        for split, build in splits.items():
            generator = build(statistics[split])
            first = next(generator, None)
            if first is not None:
                blocks[split] = itertools.chain([first], generator)
            elif split == "train":
                raise ValueError(
                    f"data.length: the train split has {statistics[split].dropped_tokens} tokens, fewer than one "
                    f"example of {length}; pass more text or a smaller --config.data.length"
                )
        builder = PackedExamples(
            length=length,
            largest_id=largest_id,
            padded=padded,
            blocks=blocks,
            labeled=labeled,
            shuffled=shuffled,
            data_dir=str(work),
            file_format="array_record",
        )
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS would announce a download, and there is none
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
        record = {
            "recipe": dict(recipe),
            "splits": {split: dataclasses.asdict(statistics[split]) for split in splits},
        }
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
