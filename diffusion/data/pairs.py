"""load_pairs: examples of a source text and a target text, with one tokenizer for both sides."""

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
from diffusion.data.tokenizers import Encoded, Tokenizer, bytes_tokenizer, digest

TOKENIZERS = ("words", "bpe", "bytes", "file")
UNKNOWN = "<unk>"
AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class PairSettings:
    """What to read, in which direction, and how to cut both sides into tokens."""

    source: str = "dialects"  # one of pair_sources.SOURCES
    path: str = ""  # folder of the source; the made-up ones need none
    reverse: bool = False  # swap source and target
    tokenizer: str = "words"  # words | bpe | bytes | file
    tokenizer_path: str = ""  # file: a tokenizer.json or its folder
    vocab_size: int = 4096  # tokens of a trained BPE of both sides, EOS included
    source_length: int = 16  # tokens of a source, EOS included
    length: int = 16  # tokens of a target, EOS included
    lower: bool = False  # lower-case both sides
    seed: int = 0  # of the made-up sources
    cache_dir: str = ""  # empty: $XDG_CACHE_HOME/diffusion or ~/.cache/diffusion

    @property
    def cache(self) -> Path:
        """Folder that holds trained tokenizers."""
        return cache_folder(self.cache_dir)


@dataclasses.dataclass
class PairStatistics:
    """What a split holds. Too long pairs are left out of training; those of validation and test are cut, and stay."""

    examples: int = 0
    source_tokens: int = 0
    target_tokens: int = 0
    left_out: int = 0
    cut: int = 0
    empty: int = 0  # pairs of which a side has no text: left out


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, one behind the other."""

    flat: Integer[np.ndarray, " T"]
    starts: Int[np.ndarray, " R"]  # one more than there are rows

    def padded(
        self, indices: Indices, length: int, pad: int
    ) -> tuple[Int32[np.ndarray, "B {length}"], Float32[np.ndarray, "B {length}"]]:
        """Rows filled up with `pad`, and their weights."""
        index = np.asarray(indices, np.int64)
        counts = self.starts[index + 1] - self.starts[index]
        real = np.arange(length)[None] < counts[:, None]
        places = np.minimum(self.starts[index][:, None] + np.arange(length)[None], max(len(self.flat) - 1, 0))
        return np.where(real, self.flat[places], pad).astype(np.int32), real.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class PairSplit:
    """Random access to the pairs of one split, which is read and encoded when it is first asked for something."""

    pairs: Callable[[], Iterator[Pair]]
    tokenizer: Tokenizer
    settings: PairSettings
    name: str

    def __len__(self) -> int:
        return self.statistics.examples

    @property
    def statistics(self) -> PairStatistics:
        """What this split holds and what it lacks."""
        return self._read[2]

    @functools.cached_property
    def _read(self) -> tuple[Ragged, Ragged, PairStatistics, list[Pair]]:
        with readers.readable(self.settings.path):
            return self._encode()

    def _encode(self) -> tuple[Ragged, Ragged, PairStatistics, list[Pair]]:
        training, statistics = self.name == "train", PairStatistics()
        kept: list[Pair] = []
        limits = (self.settings.source_length, self.settings.length)
        eos = self.tokenizer.eos_id
        assert eos is not None
        dtype = np.uint16 if self.tokenizer.pad_id < 2**16 else np.int32
        sides: tuple[list, list] = ([], [])
        counts: tuple[list, list] = ([0], [0])
        stream = prepared(self.pairs(), self.settings.lower)
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
                    kept.append(pair)
        statistics.examples = len(sides[0])
        statistics.source_tokens, statistics.target_tokens = sum(counts[0]), sum(counts[1])
        self._say(statistics)
        ragged = [
            Ragged(np.concatenate(rows) if rows else np.zeros(0, dtype), np.cumsum(count))
            for rows, count in zip(sides, counts, strict=True)
        ]
        return ragged[0], ragged[1], statistics, kept

    def _say(self, statistics: PairStatistics) -> None:
        """Warn of what is not as the source has it."""
        where = f"of the {self.name} split of {self.settings.source}"
        limits = f"{self.settings.source_length} source or {self.settings.length} target tokens"
        for count, what in (
            (statistics.left_out, f"data.length: {statistics.left_out} pairs {where} exceed {limits}: left out"),
            (statistics.cut, f"data.length: {statistics.cut} pairs {where} exceed {limits}: cut"),
            (statistics.empty, f"data.path: {statistics.empty} pairs {where} lack a side: left out"),
        ):
            if count:
                warnings.warn(what, stacklevel=3)

    def rows(self, indices: Indices) -> dict[str, Int32[np.ndarray, "B _"] | Float32[np.ndarray, "B _"]]:
        """Targets "tokens", "weights" [B, L] and sources "source", "source_weights" [B, S]; each text ends in EOS."""
        source, target, _, _ = self._read
        tokens, weights = target.padded(indices, self.settings.length, self.tokenizer.pad_id)
        told, told_weights = source.padded(indices, self.settings.source_length, self.tokenizer.pad_id)
        return {"tokens": tokens, "weights": weights, "source": told, "source_weights": told_weights}

    def texts(self, indices: Iterable[int]) -> tuple[list[str], list[tuple[str, ...]]]:
        """Sources, and all references of each, uncut; of validation and test.

        Raises: ValueError for the training split, whose texts are not kept.
        """
        if self.name == "train":
            raise ValueError("data.source: texts of the training split are not kept; use validation or test")
        chosen = [self._read[3][index] for index in indices]
        return [pair.source for pair in chosen], [pair.references or (pair.target,) for pair in chosen]


@dataclasses.dataclass(frozen=True)
class PairDataset:
    """Splits of pairs with the tokenizer of both sides; `batches` and `evaluation_batches` read it as any data set."""

    splits: Mapping[str, PairSplit]
    tokenizer: Tokenizer
    source: str
    length: int
    source_length: int
    fingerprint: str  # sha256 over the content of the source, the settings and the vocabulary
    padded: bool = True
    image: None = None
    labels: int = 0
    flip: bool = False
    domain: str = "pairs"
    start: int | None = None

    @property
    def model_vocab_size(self) -> int:
        """Tokens, the mask (which starts autoregressive targets, and is the source of none) and the padding."""
        return self.tokenizer.vocab_size + 2

    @property
    def statistics(self) -> Mapping[str, PairStatistics]:
        """Of every split; reads them all."""
        return {name: split.statistics for name, split in self.splits.items()}

    def split(self, name: str) -> PairSplit:
        """Raises: ValueError naming the splits that there are."""
        if name not in self.splits:
            raise ValueError(
                f"data.source: {self.source} has no {name!r} split here (it has: {', '.join(self.splits)})"
            )
        return self.splits[name]


def prepared(pairs: Iterator[Pair], lower: bool) -> Iterator[Pair]:
    """Pairs, in lower case where asked."""
    if not lower:
        return pairs
    return (
        Pair(pair.source.lower(), pair.target.lower(), tuple(text.lower() for text in pair.references))
        for pair in pairs
    )


def load_pairs(settings: PairSettings, tokenizer: Tokenizer | None = None) -> PairDataset:
    """Opens the pairs that `settings` describe; tokenizers are learned from both sides of the training split.

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
    """Builds `data.tokenizer`, one for both sides. Raises: ValueError for an unknown one, or without training pairs."""
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
        for pair in prepared(source.splits["train"](), settings.lower):
            yield pair.source
            yield pair.target

    if settings.tokenizer == "words":
        return words_tokenizer(sorted({word for text in both_sides() for word in text.split()}))
    sampled = str(subword.SAMPLE_CHARACTERS)
    key = digest("joint", source.name, source.content_hash, str(settings.lower), str(settings.vocab_size), sampled)
    file = settings.cache / "tokenizers" / f"bpe-{source.name}-{key[:16]}" / "tokenizer.json"
    # A BPE reads a bounded prefix: pairs from all over the training split, in which large sets are often sorted. One
    # number of texts to pass over that is odd takes from both sides.
    characters = 0 if file.exists() else sum(map(len, both_sides()))
    stride = characters // subword.SAMPLE_CHARACTERS // 2 * 2 + 1
    return subword.trained_bpe(itertools.islice(both_sides(), 0, None, stride), settings.vocab_size, file)


def words_tokenizer(words: Sequence[str]) -> Tokenizer:
    """Words between spaces, in the given order, then <unk> for all others, and EOS (also BOS)."""
    table = {word: index for index, word in enumerate([*words, UNKNOWN])}
    names = np.array(list(table))

    def encode_spans(texts: Sequence[str]) -> list[Encoded]:
        results = []
        for text in texts:
            pieces = text.split()
            ids = np.array([table.get(piece, len(words)) for piece in pieces], np.int32)
            characters = np.array([len(piece) for piece in pieces], np.int32)
            widths = np.array([len(piece.encode()) for piece in pieces], np.int32)
            results.append(Encoded(ids, characters, widths))
        return results

    def decode_text(ids: Integer[np.ndarray, " N"]) -> str:
        return " ".join(names[np.asarray(ids)])

    eos = len(table)
    return Tokenizer("words", eos + 1, eos, eos, digest("words", *table), encode_spans, decode_text)


def text_of(tokenizer: Tokenizer, ids: Integer[np.ndarray, " L"]) -> str:
    """The text of a target: what stands before its first EOS, without masks and padding."""
    ids = np.asarray(ids).reshape(-1)
    ends = np.flatnonzero(ids == tokenizer.eos_id)
    ids = ids[: ends[0]] if ends.size else ids
    return tokenizer.decode(ids[ids < tokenizer.vocab_size])
