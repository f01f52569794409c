"""Loading of pairs: examples of a source text and a target text, with one tokenizer for both sides."""

import dataclasses
import functools
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int, Int32, Integer

from diffusion.data import readers, subword
from diffusion.data.packing import Indices
from diffusion.data.pair_sources import PairSource, open_pairs
from diffusion.data.pair_tasks import Pair
from diffusion.data.settings import cache_folder
from diffusion.data.tokenizers import EncodedText, Tokenizer, bytes_tokenizer, digest

TOKENIZERS = ("words", "bpe", "bytes", "file")
UNKNOWN = "<unk>"
AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class PairSettings:
    """Settings of pairs: the source, its direction, and the tokenizer of both sides."""

    source: str = "dialects"  # one of pair_sources.SOURCES
    path: str = ""  # folder of the source; synthetic ones need none
    reverse: bool = False  # swap source and target
    tokenizer: str = "words"  # words | bpe | bytes | file
    tokenizer_path: str = ""  # file: a tokenizer.json or its folder
    vocab_size: int = 4096  # tokens of a BPE trained on both sides, EOS included
    source_length: int = 16  # tokens of a source, EOS included
    length: int = 16  # tokens of a target, EOS included
    lower: bool = False  # convert both sides to lower case
    seed: int = 0  # of the synthetic sources
    cache_dir: str = ""  # empty: $XDG_CACHE_HOME/diffusion or ~/.cache/diffusion

    @property
    def cache(self) -> Path:
        """Folder that holds trained tokenizers."""
        return cache_folder(self.cache_dir)


@dataclasses.dataclass
class PairStatistics:
    """Counts of one split. Pairs that exceed a length are omitted from training, and cut in validation and test."""

    examples: int = 0
    source_tokens: int = 0
    target_tokens: int = 0
    left_out: int = 0
    cut: int = 0
    empty: int = 0  # pairs with an empty side, which are omitted


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, concatenated."""

    flat: Integer[np.ndarray, " T"]
    starts: Int[np.ndarray, " R"]  # offsets of the rows, and the total length

    def padded(
        self, indices: Indices, length: int, pad: int
    ) -> tuple[Int32[np.ndarray, "B {length}"], Float32[np.ndarray, "B {length}"]]:
        """Rows at `indices` filled with `pad`, and their weights: 1 at tokens, 0 at padding."""
        index = np.asarray(indices, np.int64)
        counts = self.starts[index + 1] - self.starts[index]
        inside = np.arange(length)[None] < counts[:, None]
        positions = np.minimum(self.starts[index][:, None] + np.arange(length)[None], max(len(self.flat) - 1, 0))
        return np.where(inside, self.flat[positions], pad).astype(np.int32), inside.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class PairSplit:
    """Random access to the pairs of one split, which is read and encoded on first access."""

    pairs: Callable[[], Iterator[Pair]]
    tokenizer: Tokenizer
    settings: PairSettings
    name: str

    def __len__(self) -> int:
        return self.statistics.examples

    @property
    def statistics(self) -> PairStatistics:
        """Counts of this split; reads it."""
        return self._read[2]

    @functools.cached_property
    def _read(self) -> tuple[Ragged, Ragged, PairStatistics, list[Pair]]:
        with readers.readable(self.settings.path):
            return self._encode()

    def _encode(self) -> tuple[Ragged, Ragged, PairStatistics, list[Pair]]:
        training, statistics = self.name == "train", PairStatistics()
        held_out_pairs: list[Pair] = []
        limits = (self.settings.source_length, self.settings.length)
        eos = self.tokenizer.eos_id
        assert eos is not None
        dtype = np.uint16 if self.tokenizer.pad_id < 2**16 else np.int32
        sides: tuple[list, list] = ([], [])
        counts: tuple[list, list] = ([0], [0])
        stream = normalize(self.pairs(), self.settings.lower)
        while batch := list(itertools.islice(stream, AT_ONCE)):
            sources = self.tokenizer.encode_batch([pair.source for pair in batch])
            targets = self.tokenizer.encode_batch([pair.target for pair in batch])
            for pair, *ids in zip(batch, sources, targets, strict=True):
                if not (len(ids[0]) and len(ids[1])):
                    statistics.empty += 1
                    continue
                if any(len(row) >= limit for row, limit in zip(ids, limits, strict=True)):
                    if training:
                        statistics.left_out += 1
                        continue
                    statistics.cut += 1
                for side, (row, limit) in enumerate(zip(ids, limits, strict=True)):
                    row = np.append(row[: limit - 1], eos).astype(dtype)
                    sides[side].append(row)
                    counts[side].append(len(row))
                if not training:
                    held_out_pairs.append(pair)
        statistics.examples = len(sides[0])
        statistics.source_tokens, statistics.target_tokens = sum(counts[0]), sum(counts[1])
        self._warn(statistics)
        ragged = [
            Ragged(np.concatenate(rows) if rows else np.zeros(0, dtype), np.cumsum(count))
            for rows, count in zip(sides, counts, strict=True)
        ]
        return ragged[0], ragged[1], statistics, held_out_pairs

    def _warn(self, statistics: PairStatistics) -> None:
        """Warns of pairs that differ from the source or are omitted."""
        where = f"of the {self.name} split of {self.settings.source}"
        limits = f"{self.settings.source_length} source or {self.settings.length} target tokens"
        for count, message in (
            (statistics.left_out, f"data.length: {statistics.left_out} pairs {where} exceed {limits}: left out"),
            (statistics.cut, f"data.length: {statistics.cut} pairs {where} exceed {limits}: cut"),
            (statistics.empty, f"data.path: {statistics.empty} pairs {where} lack a side: left out"),
        ):
            if count:
                warnings.warn(message, stacklevel=3)

    def rows(self, indices: Indices) -> dict[str, Int32[np.ndarray, "B _"] | Float32[np.ndarray, "B _"]]:
        """Targets "tokens", "weights" [B, L] and sources "source", "source_weights" [B, S]; each text ends in EOS."""
        sources, targets, _, _ = self._read
        tokens, weights = targets.padded(indices, self.settings.length, self.tokenizer.pad_id)
        source, source_weights = sources.padded(indices, self.settings.source_length, self.tokenizer.pad_id)
        return {"tokens": tokens, "weights": weights, "source": source, "source_weights": source_weights}

    def texts(self, indices: Iterable[int]) -> tuple[list[str], list[tuple[str, ...]]]:
        """Sources and all references of each, uncut, for validation and test.

        Raises: ValueError for the training split, whose texts are not kept.
        """
        if self.name == "train":
            raise ValueError("data.source: texts of the training split are not kept; use validation or test")
        pairs = [self._read[3][index] for index in indices]
        return [pair.source for pair in pairs], [pair.references or (pair.target,) for pair in pairs]


@dataclasses.dataclass(frozen=True)
class PairDataset:
    """Splits of pairs with the tokenizer of both sides, in the interface of `Dataset` for batches."""

    splits: Mapping[str, PairSplit]
    tokenizer: Tokenizer
    source: str
    length: int
    source_length: int
    fingerprint: str  # sha256 over the content of the source, the settings, and the vocabulary
    padded: bool = True
    image: None = None
    labels: int = 0
    flip: bool = False
    domain: str = "pairs"
    start: int | None = None

    @property
    def statistics(self) -> Mapping[str, PairStatistics]:
        """Counts of every split; reads them all."""
        return {name: split.statistics for name, split in self.splits.items()}

    def split(self, name: str) -> PairSplit:
        """Split of this name.

        Raises: ValueError naming the available splits.
        """
        if name not in self.splits:
            raise ValueError(
                f"data.source: {self.source} has no {name!r} split here (it has: {', '.join(self.splits)})"
            )
        return self.splits[name]


def normalize(pairs: Iterator[Pair], lower: bool) -> Iterator[Pair]:
    """Converts pairs to lower case if `lower`."""
    if not lower:
        return pairs
    return (
        Pair(pair.source.lower(), pair.target.lower(), tuple(text.lower() for text in pair.references))
        for pair in pairs
    )


def load_pairs(settings: PairSettings, tokenizer: Tokenizer | None = None) -> PairDataset:
    """Opens the pairs that `settings` describe; tokenizers are trained on both sides of the training split.

    Raises: ValueError in one line that names the field and the remedy.
    """
    for field in ("source_length", "length"):
        if getattr(settings, field) < 2:
            raise ValueError(f"data.{field}: {getattr(settings, field)} is too short; pass at least 2")
    with readers.readable(settings.path):
        source = open_pairs(settings.source, settings.path, settings.reverse, settings.seed)
        tokenizer = tokenizer or load_tokenizer(settings, source)
    fields = (str(settings.source_length), str(settings.length), str(settings.lower))
    splits = {name: PairSplit(pairs, tokenizer, settings, name) for name, pairs in source.splits.items()}
    fingerprint = digest(source.name, source.content_hash, tokenizer.fingerprint, *fields)
    return PairDataset(splits, tokenizer, source.name, settings.length, settings.source_length, fingerprint)


def load_tokenizer(settings: PairSettings, source: PairSource) -> Tokenizer:
    """Builds `data.tokenizer`, one for both sides.

    Raises: ValueError for an unknown tokenizer, or one that needs training pairs where there are none.
    """
    if settings.tokenizer not in TOKENIZERS:
        raise ValueError(f"data.tokenizer: unknown {settings.tokenizer!r}; known for pairs: {', '.join(TOKENIZERS)}")
    if settings.tokenizer == "bytes":
        return bytes_tokenizer()
    if settings.tokenizer == "file":
        return subword.from_file(settings.tokenizer_path)
    if "train" not in source.splits:
        raise ValueError(
            f"data.tokenizer: {settings.tokenizer!r} learns from a training split, which {source.name} lacks here; "
            "pass bytes or file"
        )
    if settings.tokenizer == "bpe" and settings.vocab_size < 257:
        raise ValueError(f"data.vocab_size: {settings.vocab_size} is too small; bpe needs at least 257")

    def both_sides() -> Iterator[str]:
        for pair in normalize(source.splits["train"](), settings.lower):
            yield pair.source
            yield pair.target

    if settings.tokenizer == "words":
        return words_tokenizer(sorted({word for text in both_sides() for word in text.split()}))
    sampled = str(subword.SAMPLE_CHARACTERS)
    key = digest("joint", source.name, source.content_hash, str(settings.lower), str(settings.vocab_size), sampled)
    file = settings.cache / "tokenizers" / f"bpe-{source.name}-{key[:16]}" / "tokenizer.json"
    # A BPE reads a bounded prefix, and large sets are often sorted: a stride takes texts from the whole training split.
    # An odd stride alternates between the sides.
    characters = 0 if file.exists() else sum(map(len, both_sides()))
    stride = characters // subword.SAMPLE_CHARACTERS // 2 * 2 + 1
    return subword.trained_bpe(itertools.islice(both_sides(), 0, None, stride), settings.vocab_size, file)


def words_tokenizer(words: Sequence[str]) -> Tokenizer:
    """Tokenizer of whitespace-separated words in order, then <unk> for all others, and EOS (also BOS)."""
    table = {word: index for index, word in enumerate([*words, UNKNOWN])}
    names = np.array(list(table))

    def encode_spans(texts: Sequence[str]) -> list[EncodedText]:
        results = []
        for text in texts:
            pieces = text.split()
            ids = np.array([table.get(piece, len(words)) for piece in pieces], np.int32)
            characters = np.array([len(piece) for piece in pieces], np.int32)
            widths = np.array([len(piece.encode()) for piece in pieces], np.int32)
            results.append(EncodedText(ids, characters, widths))
        return results

    def decode_text(ids: Integer[np.ndarray, " N"]) -> str:
        return " ".join(names[np.asarray(ids)])

    eos = len(table)
    return Tokenizer("words", eos + 1, eos, eos, digest("words", *table), encode_spans, decode_text)


def text_of(tokenizer: Tokenizer, ids: Integer[np.ndarray, " L"]) -> str:
    """Text of a target up to its first EOS, without masks and padding."""
    ids = np.asarray(ids).reshape(-1)
    ends = np.flatnonzero(ids == tokenizer.eos_id)
    ids = ids[: ends[0]] if ends.size else ids
    return tokenizer.decode(ids[ids < tokenizer.vocab_size])
