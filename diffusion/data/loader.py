"""Loading of data sets: from the fields of `config.data` to random-access splits of packed examples."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32, Integer

from diffusion.data import arrays, builder, readers, subword
from diffusion.data.local_text import open_source
from diffusion.data.packing import Indices, PackedBlock, Statistics, encode_documents, padded, wrapped
from diffusion.data.settings import READY_MADE, DataSettings, read_settings
from diffusion.data.tokenizers import Tokenizer, bytes_tokenizer, characters_tokenizer, digest
from diffusion.data.types import Source

FORMAT = 1  # increment when packing, detokenizers or sources change the examples of a recipe
MEMORY_LIMIT = 256 * 1024**2
TOKENIZERS = ("bytes", "characters", "bpe", "gpt2", "wordpiece", "file")


@dataclasses.dataclass(frozen=True)
class Split:
    """Random access to the examples of one split; splits below MEMORY_LIMIT bytes stay in memory once read."""

    source: Any  # a TFDS data source, or a PackedBlock
    length: int

    def __len__(self) -> int:
        return len(self.source.tokens if isinstance(self.source, PackedBlock) else self.source)

    @functools.cached_property
    def _block(self) -> PackedBlock | None:
        if isinstance(self.source, PackedBlock):
            return self.source
        if len(self) * self.length * 4 > MEMORY_LIMIT:
            return None
        parts = [self._read(range(start, min(start + 8192, len(self)))) for start in range(0, len(self), 8192)]
        weights = [part.weights for part in parts if part.weights is not None]
        labels = [part.labels for part in parts if part.labels is not None]
        return PackedBlock(
            np.concatenate([part.tokens for part in parts]),
            np.concatenate(weights) if weights else None,
            np.concatenate(labels) if labels else None,
        )

    def _read(self, indices: Indices) -> PackedBlock:
        rows = self.source.__getitems__([int(index) for index in indices])
        weights = np.stack([row["weights"] for row in rows]) if "weights" in rows[0] else None
        labels = np.array([row["label"] for row in rows]) if "label" in rows[0] else None
        return PackedBlock(np.stack([row["tokens"] for row in rows]), weights, labels)

    def rows(self, indices: Indices) -> dict[str, Int32[np.ndarray, "B ..."] | Float32[np.ndarray, "B ..."]]:
        """{"tokens": int32 [B, L], "weights": float32 [B, L]} of the examples at `indices`.

        Where the source has them also "label": int32 [B], "prompt": int32 [B, W] and "score": float32 [B].
        """
        if self._block is None:
            block = self._read(indices)
        else:
            index = np.asarray(indices)
            block = PackedBlock._make(None if array is None else array[index] for array in self._block)
        tokens = block.tokens.astype(np.int32)
        weights = np.ones(tokens.shape, np.float32) if block.weights is None else block.weights.astype(np.float32)
        columns = zip(("label", "prompt", "score"), block[2:], (np.int32, np.int32, np.float32), strict=True)
        annotations = {name: array.astype(dtype) for name, array, dtype in columns if array is not None}
        return {"tokens": tokens, "weights": weights} | annotations


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Splits of packed examples with their tokenizer, provenance and statistics."""

    splits: Mapping[str, Split]
    tokenizer: Tokenizer
    length: int
    padded: bool
    fingerprint: str  # sha256 over the recipe, the content of the source, and the vocabulary
    statistics: Mapping[str, Statistics]
    source: str
    paper_split: str  # the split on which the MDLM code evaluates
    image: tuple[int, int, int] | None = None  # height, width, colors of rows that are channel-major images
    labels: int = 0  # number of classes; 0: no labels
    flip: bool = False  # mirror half of the training images
    domain: str = "text"  # text, image, molecules, genomes or values
    label_names: tuple[str, ...] = ()  # in the order of the labels, where the classes have names
    start: int | None = None  # first token of every example, and of every sample

    @property
    def model_vocab_size(self) -> int:
        """Number of rows of the model's embedding: tokens, the mask and, when padded, the padding."""
        return self.tokenizer.vocab_size + 1 + self.padded

    def split(self, name: str) -> Split:
        """Split of this name.

        Raises: ValueError naming the splits that have examples.
        """
        if name not in self.splits:
            raise ValueError(
                f"data.source: {self.source} has no {name!r} examples of length {self.length} (it has: "
                f"{', '.join(self.splits)}); pass more text or a smaller --config.data.length"
            )
        return self.splits[name]


def load_tokenizer(settings: DataSettings, source: Source) -> Tokenizer:
    """Builds `data.tokenizer`; trained tokenizers use the training split of the source.

    Raises: ValueError for an unknown tokenizer, or one that needs a training split where there is none.
    """
    if settings.tokenizer == "bytes":
        return bytes_tokenizer()
    saved = {"gpt2": subword.gpt2, "wordpiece": subword.wordpiece, "file": subword.from_file}
    if settings.tokenizer in saved:
        return saved[settings.tokenizer](settings.tokenizer_path)
    if settings.tokenizer not in TOKENIZERS:
        raise ValueError(f"data.tokenizer: unknown {settings.tokenizer!r}; known: {', '.join(TOKENIZERS)}")
    if settings.tokenizer == "characters" and settings.alphabet:
        return characters_tokenizer(settings.alphabet, end=source.separated)
    if "train" not in source.documents:
        raise ValueError(
            f"data.tokenizer: {settings.tokenizer!r} learns from a training split, which {source.name} lacks here; "
            "pass bytes, gpt2, wordpiece or file, or the training data's tokenizer"
        )
    if settings.tokenizer == "characters":
        symbols: set[str] = set()
        for text in source.documents["train"]():
            symbols.update(text)
        return characters_tokenizer("".join(sorted(symbols)), end=source.separated)
    key = digest(
        str(FORMAT),
        source.name,
        source.content_hash,
        str(settings.detokenize),
        str(settings.vocab_size),
        str(subword.SAMPLE_CHARACTERS),
    )
    file = settings.cache / "tokenizers" / f"bpe-{source.name}-{key[:16]}" / "tokenizer.json"
    return subword.trained_bpe(source.documents["train"](), settings.vocab_size, file)


def load_dataset(data: Any, tokenizer: Tokenizer | None = None) -> Dataset:
    """Loads the data set that `data` describes (see DataSettings), and prepares it in the cache the first time.

    Pass the `tokenizer` of another data set to encode this one with it (zero-shot evaluation).
    Raises: ValueError in one line that names the field and the remedy.
    """
    settings = read_settings(data)
    if settings.source in arrays.SOURCES:
        with readers.readable(settings.path):
            return _load_arrays(settings, tokenizer)
    if settings.tokenizer in READY_MADE:
        raise ValueError(
            f"data.tokenizer: {settings.tokenizer!r} is for ready-made arrays ({', '.join(arrays.SOURCES)}), and "
            f"{settings.source!r} is text; known: {', '.join(TOKENIZERS)}"
        )
    with readers.readable(settings.path):
        source = open_source(settings)
        tokenizer = tokenizer or load_tokenizer(settings, source)
        is_padded = settings.packing == "padded"
        recipe = {
            "format": FORMAT,
            "source": source.name,
            "content_hash": source.content_hash,
            "tokenizer": tokenizer.name,
            "tokenizer_fingerprint": tokenizer.fingerprint,
            "length": settings.length,
            "packing": settings.packing,
            "bos_eos": settings.bos_eos and not is_padded,
            "detokenize": settings.detokenize,
        }
        fingerprint = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
        folder = settings.cache / "packed" / f"{source.name}-{fingerprint[:16]}"
        if not builder.is_prepared(folder):
            builds = {split: _build(source, split, tokenizer, settings) for split in source.documents}
            builder.prepare(
                folder,
                recipe,
                builds,
                length=settings.length,
                largest_id=tokenizer.pad_id if is_padded else tokenizer.mask_id,
                padded=is_padded,
            )
    records, statistics = builder.open_prepared(folder)
    return Dataset(
        splits={split: Split(record, settings.length) for split, record in records.items()},
        tokenizer=tokenizer,
        length=settings.length,
        padded=is_padded,
        fingerprint=fingerprint,
        statistics=statistics,
        source=source.name,
        paper_split=source.paper_split,
    )


def _load_arrays(settings: DataSettings, tokenizer: Tokenizer | None) -> Dataset:
    source = arrays.open_arrays(settings)
    source_tokenizer = source.tokenizer or arrays.values_tokenizer(source.vocab_size)
    if tokenizer is not None and tokenizer.fingerprint != source_tokenizer.fingerprint:
        raise ValueError(f"data.source: {source.name} is not text, so tokenizer {tokenizer.name!r} cannot read it")
    if source.content_hash:
        recipe = {
            "format": FORMAT,
            "source": source.name,
            "content_hash": source.content_hash,
            "tokenizer_fingerprint": source_tokenizer.fingerprint,
        }
        fingerprint = digest(json.dumps(recipe, sort_keys=True))
        folder = settings.cache / "packed" / f"{source.name}-{fingerprint[:16]}"
        if not builder.is_prepared(folder):
            builds = {
                split: lambda statistics, start=start: arrays.validate_and_count(start(), source, statistics)
                for split, start in source.splits.items()
            }
            builder.prepare(
                folder,
                recipe,
                builds,
                length=source.length,
                largest_id=source.vocab_size - 1,
                padded=False,
                labeled=source.labels > 0,
                shuffled=source.shuffled,
            )
        records, statistics = builder.open_prepared(folder)
    else:
        records, statistics = arrays.in_memory(source)
        fingerprint = digest(source.name, source_tokenizer.fingerprint, arrays.blocks_hash(records))
    splits = {split: Split(record, source.length) for split, record in records.items()}
    # Some sets have no published test labels and are tested on their validation images.
    if "validation" in splits and "test" not in splits:
        splits["test"], statistics["test"] = splits["validation"], statistics["validation"]
    return Dataset(
        splits=splits,
        tokenizer=source_tokenizer,
        length=source.length,
        padded=False,
        fingerprint=fingerprint,
        statistics=statistics,
        source=source.name,
        paper_split="test",
        image=source.image,
        labels=source.labels,
        flip=settings.flip,
        domain=source.domain,
        label_names=source.label_names,
        start=source.start,
    )


def _build(source: Source, split: str, tokenizer: Tokenizer, settings: DataSettings) -> builder.BuildSplit:
    def build(statistics: Statistics) -> Iterator[PackedBlock]:
        encoded = encode_documents(source.documents[split](), tokenizer, statistics)
        if settings.packing == "padded":
            return padded(encoded, tokenizer, settings.length, statistics)
        return wrapped(encoded, tokenizer, settings.length, settings.bos_eos, source.separated, statistics)

    return build


def dataset_from_arrays(
    arrays: Mapping[str, Integer[np.ndarray, "..."]],
    tokenizer: Tokenizer,
    weights: Mapping[str, Integer[np.ndarray, "..."] | Bool[np.ndarray, "..."]] | None = None,
    source: str = "arrays",
) -> Dataset:
    """Data set of ready-made examples, whose statistics count tokens but neither characters nor bytes.

    Raises: ValueError naming an id outside the vocabulary, or for arrays whose shapes disagree.
    """
    lengths = {array.shape[1] if np.ndim(array) == 2 else None for array in arrays.values()}
    length = next(iter(lengths)) if len(lengths) == 1 else None
    if length is None:
        raise ValueError(f"arrays: expected shapes [N, L] with one common L, got lengths {lengths}")
    blocks, statistics = {}, {}
    for split, tokens in arrays.items():
        tokens = np.asarray(tokens)
        weight = None if weights is None else np.asarray(weights[split]).astype(np.uint8)
        tokenizer.check(tokens if weight is None else tokens[weight > 0], special=False)
        tokenizer.check(tokens)
        blocks[split] = Split(PackedBlock(tokens, weight), tokens.shape[1])
        count = tokens.size if weight is None else int(weight.sum())
        statistics[split] = Statistics(examples=len(tokens), tokens=count, documents=len(tokens))
    content = [split.encode() + np.asarray(array, np.int32).tobytes() for split, array in sorted(arrays.items())]
    content += [np.asarray(weight, np.uint8).tobytes() for _, weight in sorted((weights or {}).items())]
    return Dataset(
        splits=blocks,
        tokenizer=tokenizer,
        length=length,
        padded=weights is not None,
        fingerprint=digest(tokenizer.fingerprint, *content),
        statistics=statistics,
        source=source,
        paper_split="validation",
    )
