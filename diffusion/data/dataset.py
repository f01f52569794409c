"""Data sets: random access to the examples of each split, with their tokenizer, provenance and statistics."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32, Integer

from diffusion.data.packing import Block, Statistics
from diffusion.data.tokenizers import Tokenizer, digest
from diffusion.data.types import Pair

MEMORY_LIMIT = 256 * 1024**2
FLOATS = ("weights", "source_weights", "score")
Indices = Sequence[int] | Integer[np.ndarray, " B"]


@dataclasses.dataclass(frozen=True)
class Split:
    """Random access to the examples of one split; splits below MEMORY_LIMIT bytes stay in memory once read."""

    source: Any  # a block in memory, or a TFDS data source
    pairs: Callable[[], Iterator[Pair]] | None = None  # texts of the examples of a held-out split of pairs

    def __len__(self) -> int:
        return len(self.source["tokens"] if isinstance(self.source, dict) else self.source)

    @functools.cached_property
    def _block(self) -> Block | None:
        if isinstance(self.source, dict):
            return self.source
        if len(self) * sum(array.nbytes for array in self._read([0]).values()) > MEMORY_LIMIT:
            return None
        parts = [self._read(range(start, min(start + 8192, len(self)))) for start in range(0, len(self), 8192)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _read(self, indices: Indices) -> Block:
        rows = self.source.__getitems__([int(index) for index in indices])
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def rows(self, indices: Indices) -> dict[str, Int32[np.ndarray, "B ..."] | Float32[np.ndarray, "B ..."]]:
        """{"tokens": int32 [B, L], "weights": float32 [B, L]} of the examples at `indices`.

        Where the source has them also "label": int32 [B], "prompt": int32 [B, W] and "score": float32 [B]. Pairs have
        "source": int32 [B, S] and "source_weights": float32 [B, S], and each of their texts ends in EOS.
        """
        if self._block is None:
            block = self._read(indices)
        else:
            index = np.asarray(indices, np.int64)
            block = {name: array[index] for name, array in self._block.items()}
        block = {"weights": np.ones(block["tokens"].shape, np.float32)} | block
        return {name: array.astype(np.float32 if name in FLOATS else np.int32) for name, array in block.items()}

    @functools.cached_property
    def _pairs(self) -> list[Pair]:
        if self.pairs is None:
            raise ValueError("data.source: texts of the training split are not kept; use validation or test")
        pairs = list(self.pairs())
        if len(pairs) != len(self):
            raise ValueError("data.path: its files have changed since they were packed; run the command again")
        return pairs

    def texts(self, indices: Iterable[int]) -> tuple[list[str], list[tuple[str, ...]]]:
        """Sources and all references of each, uncut, of a held-out split of pairs.

        Raises: ValueError for the training split, whose texts are not kept.
        """
        pairs = [self._pairs[index] for index in indices]
        return [pair.source for pair in pairs], [pair.references or (pair.target,) for pair in pairs]


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Splits of packed examples with their tokenizer, provenance and statistics; equal to itself alone."""

    splits: Mapping[str, Split]
    tokenizer: Tokenizer
    length: int
    padded: bool
    fingerprint: str  # sha256 over the recipe, the content of the source, and the vocabulary
    statistics: Mapping[str, Statistics]
    source: str
    paper_split: str = "validation"  # the split on which the MDLM code evaluates
    image: tuple[int, int, int] | None = None  # height, width, colors of rows that are channel-major images
    labels: int = 0  # number of classes; 0: no labels
    flip: bool = False  # mirror half of the training images
    domain: str = "text"  # text, pairs, image, prompted, captions, molecules, genomes, mixture or values
    label_names: tuple[str, ...] = ()  # in the order of the labels, where the classes have names
    start: int | None = None  # first token of every example, and of every sample
    missing: str = ""  # why there are no splits, where the files are not given

    def split(self, name: str) -> Split:
        """Split of this name.

        Raises: ValueError naming the splits that have examples, or the files that are missing.
        """
        if self.missing:
            raise ValueError(self.missing)
        if name not in self.splits:
            raise ValueError(
                f"data.source: {self.source} has no {name!r} examples of length {self.length} (it has: "
                f"{', '.join(self.splits)}); pass more data or another --config.data.length"
            )
        return self.splits[name]


def dataset_from_arrays(
    arrays: Mapping[str, Integer[np.ndarray, "..."]],
    tokenizer: Tokenizer,
    weights: Mapping[str, Integer[np.ndarray, "..."] | Bool[np.ndarray, "..."]] | None = None,
    source: str = "arrays",
) -> Dataset:
    """Data set of ready-made examples, whose statistics count tokens but neither characters nor bytes.

    Raises: ValueError naming an id outside the vocabulary, or for arrays whose shapes disagree.
    """
    shapes = [array.shape for array in arrays.values()]
    if {len(shape) for shape in shapes} != {2} or len({shape[1] for shape in shapes}) != 1:
        raise ValueError(f"arrays: expected shapes [N, L] with one common L, got {shapes}")
    splits, statistics, content = {}, {}, []
    for split, tokens in sorted(arrays.items()):
        block = {"tokens": np.asarray(tokens)}
        if weights is not None:
            block["weights"] = np.asarray(weights[split]).astype(np.uint8)
        weight = block.get("weights", np.ones_like(block["tokens"]))
        tokenizer.check(block["tokens"][weight > 0], special=False)
        tokenizer.check(block["tokens"])
        splits[split] = Split(block)
        statistics[split] = Statistics(examples=len(tokens), tokens=int(weight.sum()), documents=len(tokens))
        content += [split.encode(), *(np.asarray(array, np.int32).tobytes() for array in block.values())]
    fingerprint = digest(tokenizer.fingerprint, *content)
    return Dataset(splits, tokenizer, shapes[0][1], weights is not None, fingerprint, statistics, source)
