"""Tokenizers between text and token ids, with exact counts of the characters and bytes that tokens cover."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int, Integer, Shaped

from diffusion.types import Ids

MASK_TEXT = "▢"
END_TEXT = "<|endoftext|>"
UNKNOWN_TEXT = "<unk>"


class EncodedText(NamedTuple):
    """Token ids of a document and the characters and UTF-8 bytes of text that each token covers.

    Of a long document in pieces, only the last one `ends`.
    """

    ids: Int[np.ndarray, " N"]
    characters: Int[np.ndarray, " N"]
    bytes: Int[np.ndarray, " N"]
    ends: bool = True


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Vocabulary of `vocab_size` tokens (EOS and BOS included), followed by the ids of mask and padding.

    `encode_spans` neither adds EOS or BOS nor interprets their text form as a special token, so that the text of a
    document cannot end it. `eos_id` and `bos_id` are None for alphabets without them (the 27 symbols of text8).
    """

    name: str
    vocab_size: int
    eos_id: int | None
    bos_id: int | None
    fingerprint: str  # sha256 of the vocabulary
    encode_spans: Callable[[Sequence[str]], list[EncodedText]]
    decode_text: Callable[[Integer[np.ndarray, " N"]], str]  # ordinary tokens only
    # Characters and bytes of every id, where they depend on the id alone (all but WordPiece and `file`).
    token_characters: Int[np.ndarray, " V"] | None = None
    token_bytes: Int[np.ndarray, " V"] | None = None
    # Token of the vocabulary that fills a sequence after EOS; where there is one, a sequence is one document.
    filler_id: int | None = None
    # Where texts can be cut such that the tokens of the parts are those of the whole: anywhere between characters, at
    # some ends of words (see `pieces`), or nowhere.
    divides: Literal["anywhere", "words", "nowhere"] = "nowhere"
    # Arguments, as JSON data, from which `stored_tokenizers` makes it again.
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def mask_id(self) -> int:
        """First id after the vocabulary."""
        return self.vocab_size

    @property
    def pad_id(self) -> int:
        """Second id after the vocabulary; occurs with padded packing alone."""
        return self.vocab_size + 1

    def encode_batch(self, texts: Sequence[str]) -> list[Int[np.ndarray, " N"]]:
        """Token ids (int32) of each text, without BOS and EOS."""
        return [encoded.ids for encoded in self.encode_spans(texts)]

    def encode(self, text: str) -> Int[np.ndarray, " N"]:
        """Token ids (int32) of one text, without BOS and EOS."""
        return self.encode_batch([text])[0]

    def check(self, ids: Sequence[int] | Shaped[np.ndarray, "..."], special: bool = True) -> None:
        """Checks that all ids are in the vocabulary or, if `special`, mask or padding.

        Raises: ValueError naming the first other id.
        """
        array = np.asarray(ids)
        if array.size and not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"token ids must be integers, got {array.dtype}")
        limit = self.pad_id + 1 if special else self.vocab_size
        invalid = array[(array < 0) | (array >= limit)]
        if invalid.size:
            raise ValueError(
                f"token id {int(invalid[0])} is outside the vocabulary of tokenizer {self.name!r} "
                f"({self.vocab_size} tokens, mask {self.mask_id}, padding {self.pad_id})"
            )

    def covered(self, ids: Sequence[int] | Integer[np.ndarray, "..."]) -> tuple[int, int] | None:
        """Characters and UTF-8 bytes that the tokens cover (special tokens: none); None where ids do not determine it.

        Raises: ValueError naming an id outside the vocabulary.
        """
        if self.token_characters is None or self.token_bytes is None:
            return None
        self.check(ids)
        ordinary = np.asarray(ids)[np.asarray(ids) < self.vocab_size]
        return int(self.token_characters[ordinary].sum()), int(self.token_bytes[ordinary].sum())

    def decode(self, ids: Ids, mask: str = MASK_TEXT, end: str = END_TEXT) -> str:
        """Text of one sequence, with masks as `mask`, EOS and BOS as `end`, and padding as the empty string.

        Where a sequence is one document (`filler_id`), the text up to the first EOS, without BOS.
        Raises: ValueError naming an id outside the vocabulary.
        """
        ids = np.asarray(ids).reshape(-1)
        self.check(ids)
        if self.filler_id is not None:
            ids = one_document(ids, self.eos_id, self.bos_id, self.filler_id)
        shown = {self.mask_id: mask, self.pad_id: "", self.eos_id: end, self.bos_id: end}
        shown.pop(None, None)
        text = ""
        # Each part but the first begins with a special token.
        for part in np.split(ids, np.flatnonzero(np.isin(ids, list(shown)))):
            if len(part) and int(part[0]) in shown:
                text, part = text + shown[int(part[0])], part[1:]
            text += self.decode_text(part) if len(part) else ""
        return text

    def pieces(self, ids: Ids) -> list[str | None]:
        """Texts of one sequence in order, with None for each EOS and BOS between them; masks and padding are left out.

        Raises: ValueError naming an id outside the vocabulary.
        """
        ids = np.asarray(ids).reshape(-1)
        self.check(ids)
        if self.filler_id is not None:
            ids = one_document(ids, self.eos_id, self.bos_id, self.filler_id)
        ends = [token for token in (self.eos_id, self.bos_id) if token is not None]
        found: list[str | None] = []
        # Each part but the first begins with an end.
        for part in np.split(ids, np.flatnonzero(np.isin(ids, ends))):
            found += [None] if len(part) and part[0] in ends else []
            text = part[~np.isin(part, [*ends, self.mask_id, self.pad_id])]
            found += [self.decode_text(text)] if len(text) else []
        return found

    def documents(self, ids: Ids) -> list[str]:
        """Texts of the non-empty documents of one sequence, separated by EOS and BOS; at most one with `filler_id`."""
        ids = np.asarray(ids).reshape(-1)
        self.check(ids)
        if self.filler_id is not None:
            ids = one_document(ids, self.eos_id, self.bos_id, self.filler_id)
        ends = [token for token in (self.eos_id, self.bos_id) if token is not None]
        parts = np.split(ids, np.flatnonzero(np.isin(ids, ends)))
        texts = [self.decode(part[~np.isin(part, [*ends, self.pad_id])]) for part in parts]
        return [text for text in texts if text]


def one_document(
    ids: Integer[np.ndarray, " N"], eos: int | None, bos: int | None, filler: int | None
) -> Integer[np.ndarray, " M"]:
    """Tokens before the first EOS, without BOS and fillers."""
    ends = np.flatnonzero(ids == eos)
    ids = ids[: ends[0]] if ends.size else ids
    return ids[~np.isin(ids, [token for token in (bos, filler) if token is not None])]


def record_digest(record: dict) -> str:
    """sha256 of a record of JSON data without its own hash, `sha256`."""
    fields = json.loads(json.dumps({name: value for name, value in record.items() if name != "sha256"}))
    return digest(json.dumps(fields, sort_keys=True))  # with keys as they will be read, which are texts


def digest(*parts: str | bytes) -> str:
    """sha256 over the parts and their lengths."""
    result = hashlib.sha256()
    for part in parts:
        part = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        result.update(len(part).to_bytes(8, "little") + part)
    return result.hexdigest()


def bytes_tokenizer() -> Tokenizer:
    """Tokenizer of the 256 bytes of UTF-8 and EOS (256, also BOS)."""
    pieces = [bytes([value]) for value in range(256)] + [b""]
    widths, starts = piece_spans(pieces)

    def encode_spans(texts):
        results = []
        for text in texts:
            ids = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32)
            results.append(EncodedText(ids, starts[ids], widths[ids]))
        return results

    def decode_text(ids):
        return np.asarray(ids, np.uint8).tobytes().decode("utf-8", errors="replace")

    fingerprint = digest("bytes", "257")
    return Tokenizer("bytes", 257, 256, 256, fingerprint, encode_spans, decode_text, starts, widths, divides="anywhere")


def piece_spans(pieces: Sequence[bytes]) -> tuple[Int[np.ndarray, " V"], Int[np.ndarray, " V"]]:
    """Bytes of each token, and characters that begin in it (UTF-8 bytes other than continuations)."""
    widths = np.array([len(piece) for piece in pieces], np.int32)
    starts = np.array([sum(byte & 0xC0 != 0x80 for byte in piece) for piece in pieces], np.int32)
    return widths, starts


def utf8_widths(codes: Integer[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """Number of UTF-8 bytes of each code point."""
    return (1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)).astype(np.int32)


def characters_tokenizer(alphabet: str, end: bool) -> Tokenizer:
    """Tokenizer with one id per symbol of `alphabet`, in order; `end` appends an EOS token (also BOS).

    Raises: ValueError for an empty alphabet or repeated symbols, and on encoding a character outside it.
    """
    codes = np.frombuffer(alphabet.encode("utf-32-le"), np.uint32).astype(np.int64)
    if not alphabet or len(set(alphabet)) != len(alphabet):
        raise ValueError("data.alphabet: symbols must be distinct and at least one")
    table = np.full(codes.max() + 2, -1, np.int32)
    table[codes] = np.arange(len(codes), dtype=np.int32)
    symbols = np.array(list(alphabet))

    def encode_spans(texts):
        results = []
        for text in texts:
            points = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64)
            ids = table[np.minimum(points, len(table) - 1)]
            if (ids < 0).any():
                raise ValueError(
                    f"data.alphabet: character {text[int(np.argmax(ids < 0))]!r} is not among its "
                    f"{len(alphabet)} symbols; add it or pass --config.data.tokenizer=bytes"
                )
            results.append(EncodedText(ids, np.ones_like(ids), utf8_widths(points)))
        return results

    def decode_text(ids):
        return "".join(symbols[np.asarray(ids)])

    size, eos = len(alphabet) + end, len(alphabet) if end else None
    fingerprint = digest("characters", alphabet, str(eos))
    characters = np.array([1] * len(codes) + [0] * end, np.int32)
    widths = np.append(utf8_widths(codes), [0] * end).astype(np.int32)
    counted = {"token_characters": characters, "token_bytes": widths, "divides": "anywhere"}
    arguments = {"alphabet": alphabet, "end": end}
    return Tokenizer(
        "characters", size, eos, eos, fingerprint, encode_spans, decode_text, **counted, arguments=arguments
    )


def words_tokenizer(words: Sequence[str]) -> Tokenizer:
    """Tokenizer of whitespace-separated words in order, then <unk> for all others, and EOS (also BOS)."""
    table = {word: index for index, word in enumerate([*words, UNKNOWN_TEXT])}
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
    fingerprint, arguments = digest("words", *table), {"words": list(words)}
    return Tokenizer("words", eos + 1, eos, eos, fingerprint, encode_spans, decode_text, arguments=arguments)
