"""Every tokenizer: round trips, sizes, special ids, coverage of text, and messages for bad input."""

import json

import numpy as np
import pytest
import tokenizers as hf

from diffusion.data import stored_tokenizers, subword
from diffusion.data.tokenizers import bytes_tokenizer, characters_tokenizer, words_tokenizer
from tests.checks import refused
from tests.data.files import write

TEXTS = [
    "def f(x):\n    return x + 1\n",
    "naïve ☃ \U0001d6fc \U0001f600 end",
    "",
    "  two  spaces\t\r\n",
    "<|endoftext|>",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vocabularies")


@pytest.fixture(scope="module")
def trained(folder):
    return subword.trained_bpe(TEXTS * 20, 300, folder / "bpe" / "tokenizer.json")


@pytest.fixture(scope="module")
def tiny_gpt2(folder):
    symbols = list(subword.byte_alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the")]
    names = [*symbols, *("".join(pair) for pair in merges), "<|endoftext|>"]
    vocabulary = json.dumps({name: index for index, name in enumerate(names)})
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    return subword.gpt2(str(write(folder, {"encoder.json": vocabulary, "vocab.bpe": "\n".join(lines) + "\n"})))


@pytest.fixture(scope="module")
def tiny_wordpiece(folder):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "##s", "sat", ".", "na", "##ive"]
    return subword.wordpiece(str(write(folder, {"vocab.txt": "\n".join(words) + "\n"})))


@pytest.fixture(scope="module")
def lossless(trained, tiny_gpt2):
    return [bytes_tokenizer(), trained, tiny_gpt2]


def test_lossless_tokenizers_round_trip_any_text_and_cover_it_exactly(lossless):
    for tokenizer in lossless:
        for text, encoded in zip(TEXTS, tokenizer.encode_spans(TEXTS), strict=True):
            assert encoded.ids.dtype == np.int32
            assert tokenizer.decode(encoded.ids) == text
            assert encoded.characters.sum() == len(text)
            assert encoded.bytes.sum() == len(text.encode())
            specials = [tokenizer.eos_id, tokenizer.mask_id, tokenizer.pad_id]
            assert tokenizer.covered(np.append(encoded.ids, specials)) == (len(text), len(text.encode()))
            assert not np.isin(encoded.ids, tokenizer.eos_id).any()  # text cannot end its own document


def test_sizes_and_special_ids_follow_one_numbering(lossless, tiny_wordpiece):
    tokenizer = bytes_tokenizer()
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.mask_id, tokenizer.pad_id) == (257, 256, 257, 258)
    assert tiny_wordpiece.vocab_size == 11
    assert (tiny_wordpiece.bos_id, tiny_wordpiece.eos_id) == (2, 3)
    assert lossless[2].vocab_size == 260 and lossless[2].eos_id == 259
    assert lossless[2].encode("the the th").tolist()[:2] == [257, 258]  # merges in their order
    assert lossless[1].vocab_size <= 300 and lossless[1].eos_id == lossless[1].vocab_size - 1
    assert len({tokenizer.fingerprint for tokenizer in [*lossless, tiny_wordpiece]}) == 4


def test_decode_shows_masks_ends_and_hides_padding():
    tokenizer = bytes_tokenizer()
    ids = [256, *b"ab", 257, *b"c", 256, 258, 258]
    assert tokenizer.decode(ids) == "<|endoftext|>ab▢c<|endoftext|>"
    assert tokenizer.decode(ids, mask="_", end="") == "ab_c"
    assert tokenizer.documents([256, *b"ab", 256, 256, *b"c", 258]) == ["ab", "c"]
    assert tokenizer.decode(list("é".encode())[:1]) == "�"


def test_an_id_outside_the_vocabulary_is_named():
    tokenizer = bytes_tokenizer()
    for wrong in (259, -1):
        with refused(f"token id {wrong} is outside the vocabulary"):
            tokenizer.decode([1, wrong])
    tokenizer.check(np.array([[0, 256]]), special=False)
    with refused("token id 257"):
        tokenizer.check(np.array([[0, 257]]), special=False)
    with refused("must be integers"):
        tokenizer.check(np.array([0.5]))


def test_characters_keep_the_order_of_their_alphabet():
    tokenizer = characters_tokenizer(" abé", end=False)
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.mask_id) == (4, None, 4)
    encoded = tokenizer.encode_spans(["b aé"])[0]
    assert encoded.ids.tolist() == [2, 0, 1, 3]
    assert encoded.characters.sum() == 4 and encoded.bytes.sum() == 5
    assert tokenizer.decode([2, 0, 1, 3, 4]) == "b aé▢"
    assert tokenizer.covered([3, 4, 0]) == (2, 3)
    assert characters_tokenizer("ab", end=True).vocab_size == 3
    for text in ("abz", "ab☃"):
        with refused(r"data\.alphabet: character '[z☃]'"):
            tokenizer.encode(text)
    with refused(r"data\.alphabet"):
        characters_tokenizer("aa", end=False)


def test_training_is_deterministic_bounded_and_saved(folder, trained, monkeypatch):
    file = folder / "bpe" / "tokenizer.json"
    again = subword.trained_bpe(TEXTS * 20, 300, folder / "again" / "tokenizer.json")
    assert again.fingerprint == trained.fingerprint
    assert (folder / "again" / "tokenizer.json").read_text() == file.read_text()
    from_cache = subword.trained_bpe(iter(()), 300, file)  # no documents: it must read the file
    assert from_cache.fingerprint == trained.fingerprint
    damaged = write(folder / "damaged", {"tokenizer.json": file.read_text()[:500]}) / "tokenizer.json"
    assert subword.trained_bpe(TEXTS * 20, 300, damaged).fingerprint == trained.fingerprint
    monkeypatch.setattr(subword, "SAMPLE_CHARACTERS", 10)
    assert "".join(subword._prefix(["abcdef", "ghijkl", "mnopqr"])) == "abcdefghij"


def test_wordpiece_covers_text_by_offsets(tiny_wordpiece):
    text = "The  cats sat☃. "
    encoded = tiny_wordpiece.encode_spans([text])[0]
    assert encoded.ids.tolist()[:3] == [4, 5, 6]
    assert encoded.characters.tolist()[:3] == [3, 5, 1]  # a token covers the text since its predecessor
    assert encoded.characters.sum() == len(text)
    assert encoded.bytes.sum() == len(text.encode())
    assert tiny_wordpiece.covered(encoded.ids) is None
    assert tiny_wordpiece.decode(encoded.ids[:3]) == "the cats"


@pytest.mark.parametrize("lossy", [False, True])
def test_a_stored_tokenizer_is_the_same_again(lossless, tiny_wordpiece, lossy, tmp_path):
    others = [tiny_wordpiece, words_tokenizer(["the", "cat"]), characters_tokenizer("the cas", end=True)]
    for tokenizer in others if lossy else lossless:
        text = stored_tokenizers.record(tokenizer)
        stored = stored_tokenizers.parse(text, tmp_path)
        assert (stored.name, stored.fingerprint) == (tokenizer.name, tokenizer.fingerprint)
        assert stored.tokenizer is not None and stored_tokenizers.record(stored.tokenizer) == text
        assert stored.tokenizer.encode("the cat").tolist() == tokenizer.encode("the cat").tolist()


@pytest.mark.parametrize("model", ["unigram", "words"])
def test_text_cannot_end_its_document(model, tmp_path):
    """The names of special tokens are pieces or words of these vocabularies, which `encode_special_tokens` ignores."""
    pieces = ["</s>", "<s>", "a", " ", "<", "/", "s", ">"]
    if model == "unigram":
        library = hf.Tokenizer(hf.models.Unigram([(piece, 0.0 if len(piece) > 2 else -2.0) for piece in pieces], 3))
    else:
        library = hf.Tokenizer(hf.models.WordLevel({piece: index for index, piece in enumerate(pieces)}, " "))
        library.pre_tokenizer = hf.pre_tokenizers.WhitespaceSplit()
    library.add_special_tokens(["</s>", "<s>"])
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = subword.from_file(str(tmp_path))
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.bos_id) == (8, 0, 1)
    expected = [2, 3, 4, 5, 6, 7, 3, 4, 6, 7] if model == "unigram" else [2, 3, 3]
    assert tokenizer.encode("a </s> <s>").tolist() == expected
    with refused(r"data\.tokenizer_path: '.*</s>' in a text is the start or the end of a document to tokenizer 'file'"):
        tokenizer.encode("\uffff</s>")


def test_a_tokenizer_file_brings_its_own_specials(folder):
    library = hf.Tokenizer(hf.models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    library.pre_tokenizer = hf.pre_tokenizers.Whitespace()
    library.save(str(folder / "plain.json"))
    plain = subword.from_file(str(folder / "plain.json"))
    assert (plain.vocab_size, plain.eos_id, plain.bos_id) == (4, 3, 3)  # without a known name EOS is appended
    library.add_special_tokens(["<s>", "</s>"])
    library.save(str(folder / "tokenizer.json"))
    named = subword.from_file(str(folder))
    assert (named.vocab_size, named.eos_id, named.bos_id) == (5, 4, 3)
    assert 4 not in named.encode("a </s> b")
    encoded = named.encode_spans(["a  b"])[0]
    assert encoded.ids.tolist() == [1, 2] and encoded.characters.tolist() == [1, 3]
