"""Packing: layouts computed manually, exact counts, and the text after decoding."""

import dataclasses

import numpy as np
import pytest
import tokenizers as hf

from diffusion.data import packing, pieces, subword
from diffusion.data.packing import Statistics, encode_documents, padded, wrapped
from diffusion.data.tokenizers import EncodedText, bytes_tokenizer, characters_tokenizer

TOKENIZER = bytes_tokenizer()
EOS, PAD = TOKENIZER.eos_id, TOKENIZER.pad_id


def pack(documents, length, bos_eos=True, separated=True, tokenizer=TOKENIZER):
    statistics = Statistics()
    encoded = encode_documents(documents, tokenizer, statistics)
    blocks = list(wrapped(encoded, tokenizer, length, bos_eos, separated, statistics))
    rows = np.concatenate([block["tokens"] for block in blocks]) if blocks else np.zeros((0, length), np.int32)
    return rows, statistics


def test_wrapped_with_bos_and_eos_is_the_layout_of_the_papers():
    rows, statistics = pack(["abcd", "efg"], 5)
    # stream: a b c d EOS e f g EOS -> cuts of three
    expected = [[EOS, *b"abc", EOS], [EOS, *b"d", EOS, *b"e", EOS], [EOS, *b"fg", EOS, EOS]]
    assert rows.tolist() == expected
    assert (statistics.examples, statistics.tokens, statistics.characters) == (3, 15, 7)
    assert (statistics.documents, statistics.dropped_tokens) == (2, 0)


def test_wrapped_without_ends_drops_and_does_not_count_the_remainder():
    rows, statistics = pack(["abé", "fg"], 4, bos_eos=False)
    # stream: a b C3 A9 EOS f g EOS -> two whole cuts; with length 5 a remainder
    assert rows.tolist() == [[*"abé".encode()], [EOS, *b"fg", EOS]]
    assert (statistics.tokens, statistics.characters, statistics.bytes) == (8, 5, 6)
    rows, statistics = pack(["abé", "fg"], 3, bos_eos=False)
    # cuts: a b C3 | A9 EOS f, and g EOS dropped; é counts as the character of its first byte
    assert rows.tolist() == [[97, 98, 0xC3], [0xA9, EOS, 102]]
    assert (statistics.characters, statistics.bytes, statistics.dropped_tokens) == (4, 5, 2)


def test_continuous_text_has_no_eos():
    rows, statistics = pack(["abc", "def"], 2, bos_eos=False, separated=False)
    assert rows.tolist() == [[97, 98], [99, 100], [101, 102]]
    assert statistics.tokens == statistics.characters == 6


def test_empty_documents_leave_their_eos_when_wrapped_and_nothing_when_padded():
    assert pack(["", "a"], 3, bos_eos=False)[0].tolist() == [[EOS, 97, EOS]]
    statistics = Statistics()
    blocks = list(padded(encode_documents(["", ""], TOKENIZER, statistics), TOKENIZER, 4, statistics))
    assert blocks == [] and statistics.examples == 0 and statistics.documents == 2


def test_wrapping_does_not_depend_on_batching(monkeypatch):
    rng = np.random.default_rng(0)
    documents = ["x" * int(n) + "é" for n in rng.integers(0, 40, 50)]
    whole, counted = pack(documents, 7)
    monkeypatch.setattr(packing, "DOCUMENTS_AT_ONCE", 3)
    parts, counted_in_parts = pack(documents, 7)
    np.testing.assert_array_equal(whole, parts)
    assert counted == counted_in_parts
    stream = whole[:, 1:-1].reshape(-1)
    text = "".join(document + "|" for document in documents).encode()
    np.testing.assert_array_equal(np.where(stream == EOS, ord("|"), stream), list(text)[: len(stream)])


LONG = "".join(f"word{n} don't  go\n\n\ton é{n % 7}, " for n in range(900)) + "x" * 3000 + "  end"


@pytest.mark.parametrize("kind", ["bytes", "bpe", "words", "pieces"])
def test_long_documents_have_the_tokens_of_the_whole(kind, monkeypatch, tmp_path):
    """Also where a word is longer than a piece, and for a vocabulary of pieces, which is not split into words."""
    if kind == "pieces":
        library = hf.Tokenizer(hf.models.Unigram([(each, -1.0) for each in sorted({*LONG, "d1 d"})], 0))
        tokenizer = subword.with_offsets("file", library, None, None)
    elif kind == "words":
        library = hf.Tokenizer(hf.models.WordLevel({"end": 0, "word7": 1, "?": 2}, "?"))
        library.pre_tokenizer = hf.pre_tokenizers.Whitespace()
        tokenizer = subword.with_offsets("file", library, None, None)
    else:
        tokenizer = TOKENIZER if kind == "bytes" else subword.trained_bpe([LONG], 400, tmp_path / "tokenizer.json")
    whole, counted = pack([LONG, "short", LONG], 7, tokenizer=tokenizer)
    monkeypatch.setattr(pieces, "PIECE", 500)
    cut = [text for text, _ in pieces.pieces(LONG, tokenizer)]
    assert "".join(cut) == LONG and (len(cut) == 1) == (kind == "pieces")
    assert max(map(len, cut)) < (800 if kind == "bytes" else 4500 if kind != "pieces" else 10**9)
    for document in (LONG, [LONG[start : start + 333] for start in range(0, len(LONG), 333)]):
        parts, counted_in_parts = pack([document, "short", document], 7, tokenizer=tokenizer)
        np.testing.assert_array_equal(whole, parts)
        ignored = {"lossy": 0}  # pieces are counted one by one
        assert dataclasses.replace(counted, **ignored) == dataclasses.replace(counted_in_parts, **ignored)
    statistics = Statistics()
    blocks = list(padded(encode_documents([LONG, "ab"], TOKENIZER, statistics), TOKENIZER, 8, statistics))
    assert blocks[0]["tokens"].tolist() == [[EOS, *b"word0 ", EOS], [EOS, *b"ab", EOS, *[PAD] * 4]]
    assert statistics.dropped_tokens == len(LONG.encode()) - 6


def test_padded_truncates_fills_and_weights():
    statistics = Statistics()
    encoded = encode_documents(["ab", "abcdef"], TOKENIZER, statistics)
    (block,) = padded(encoded, TOKENIZER, 5, statistics)
    assert block["tokens"].tolist() == [[EOS, 97, 98, EOS, PAD], [EOS, *b"abc", EOS]]
    assert block["weights"].tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert (statistics.tokens, statistics.characters, statistics.dropped_tokens) == (9, 5, 3)


def test_a_document_that_is_cut_keeps_its_end():
    """The worked example has BOS = EOS = 30 and eight tokens."""
    tokenizer = dataclasses.replace(TOKENIZER, eos_id=30, bos_id=30)
    encoded = [EncodedText(*np.tile(np.arange(7, dtype=np.int32), (3, 1)))]
    (block,) = padded(encoded, tokenizer, 8, Statistics())
    assert block["tokens"].tolist() == [[30, 0, 1, 2, 3, 4, 5, 30]] and block["weights"].all()


def test_an_alphabet_without_eos_cannot_have_bos_eos():
    tokenizer = characters_tokenizer("ab", end=False)
    with pytest.raises(ValueError, match=r"data\.bos_eos.*pass --config\.data\.bos_eos=False"):
        pack(["abab"], 4, tokenizer=tokenizer)
    assert pack(["abab"], 2, False, False, tokenizer)[0].tolist() == [[0, 1], [0, 1]]


def test_documents_that_tokens_do_not_give_back_are_counted():
    """Only tokenizers that may drop text are asked; here one has lower-case letters alone."""
    lower = dataclasses.replace(
        TOKENIZER, token_bytes=None, token_characters=None, decode_text=lambda ids: TOKENIZER.decode_text(ids).lower()
    )
    for tokenizer, expected in ((lower, 2), (TOKENIZER, 0)):
        statistics = Statistics()
        # The last one is in a batch of its own.
        assert len(list(encode_documents(["Ab", "cd" * 500_000, "eF"], tokenizer, statistics))) >= 3
        assert statistics.lossy == expected
