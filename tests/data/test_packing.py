"""Packing: layouts computed manually, exact counts, and the text after decoding."""

import dataclasses

import numpy as np
import pytest

from diffusion.data import packing
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
        assert len(list(encode_documents(["Ab", "cd", "eF"], tokenizer, statistics))) == 3
        assert statistics.lossy == expected
