"""Tokenizers of prompts on small vocabularies, and on GenEval's prompts against OpenCLIP where the files are."""

import hashlib
import json

import numpy as np
import pytest

from diffusion.data.prompt_tokenizers import OPENAI_FILE, clean, load_bert_tokenizer, load_clip_tokenizer
from diffusion.data.subword import byte_alphabet
from tests.checks import refused
from tests.data.files import real_data, write

MERGES = ("c a", "ca t</w>", "d o", "do g</w>", "' s</w>", "a t</w>", ". .", ".. .</w>")
SYMBOLS = list(byte_alphabet())
NAMES = [*SYMBOLS, *(symbol + "</w>" for symbol in SYMBOLS), *(merge.replace(" ", "") for merge in MERGES)]
BEGIN, END = len(NAMES), len(NAMES) + 1
# The hashes of all ids of the 553 prompts, padded with 0, by OpenCLIP 3.3, and by BERT's tokenizer of transformers 5.
GENEVAL = "88325865ae3289143914d4a33c435dcb189b003af9624935aa3990df49bf4072"
GENEVAL_BERT = "5615d4212fe48cdabcaebec9a89ef4f0a904c23767225fd5976af4f0aab9ff0e"


def openai_folder(folder):
    header = '"bpe_simple_vocab_16e6.txt#version: 0.2'
    return write(folder, {OPENAI_FILE: "\n".join([header, *MERGES]) + "\n"})


def hugging_face_folder(folder, names=(*NAMES, "<|startoftext|>", "<|endoftext|>"), merges=MERGES):
    vocabulary = {name: index for index, name in enumerate(names)}
    return write(folder, {"vocab.json": json.dumps(vocabulary), "merges.txt": "\n".join(["#version: 0.2", *merges])})


def ids_of(*names):
    return [NAMES.index(name) for name in names]


def sha256(ids):
    return hashlib.sha256(ids.astype("<i4").tobytes()).hexdigest()


@pytest.fixture(params=[openai_folder, hugging_face_folder], ids=["openai", "hugging_face"])
def clip_folder(request, tmp_path):
    return request.param(tmp_path)


def test_pieces_are_merged_by_rank_between_begin_and_end(clip_folder):
    tokenizer = load_clip_tokenizer(clip_folder, length=9)
    assert (tokenizer.begin, tokenizer.end, tokenizer.pad) == (BEGIN, END, END)
    prompts = ["cat dog's", " CAT\t&amp;amp; cats... ", "", "12", "é"]
    expected = [
        ids_of("cat</w>", "dog</w>", "'s</w>"),
        ids_of("cat</w>", "&</w>", "ca", "t", "s</w>", "...</w>"),
        [],
        ids_of("1</w>", "2</w>"),
        ids_of("Ã", "©</w>"),
    ]
    ids = tokenizer(prompts)
    assert ids.dtype == np.int32
    assert ids.tolist() == [[BEGIN, *row, END] + [END] * (7 - len(row)) for row in expected]


def test_padding_is_the_end_or_0_and_long_prompts_keep_the_end(clip_folder):
    by_end, by_zero = (load_clip_tokenizer(clip_folder, pad, length=6) for pad in ("end", "zero"))
    assert by_end(["dog"]).tolist() == [[BEGIN, *ids_of("dog</w>"), END, END, END, END]]
    assert by_zero(["dog"]).tolist() == [[BEGIN, *ids_of("dog</w>"), END, 0, 0, 0]]
    assert by_zero(["cat " * 4, "cat " * 9]).tolist() == [[BEGIN, *ids_of("cat</w>") * 4, END]] * 2
    assert load_clip_tokenizer(clip_folder)(["cat"] * 3).shape == (3, 77)
    assert by_zero([]).shape == (0, 6)


def test_the_names_of_special_tokens_are_text(clip_folder):
    ids = load_clip_tokenizer(clip_folder, "zero")(["a <|endoftext|> cat"])[0].tolist()
    assert ids.count(END) == 1 and ids[ids.index(END) - 1] == NAMES.index("cat</w>")


def test_prompts_are_cleaned_as_by_clip():
    assert clean("  It\u2019s\n “A”\u00a0&lt;b&gt; e\u0301 ") == 'it\'s "a" <b> \u00e9'
    assert clean("&amp;amp;") == "&"


def test_bad_folders_of_clip_are_refused(tmp_path):
    with refused(f"'{tmp_path}' has no vocab.json; pass a folder"):
        load_clip_tokenizer(tmp_path)
    folder = hugging_face_folder(tmp_path / "no_merges")
    (folder / "merges.txt").unlink()
    with refused("no_merges' has no merges.txt"):
        load_clip_tokenizer(folder)
    with refused("no_end' has no <|endoftext|>"):
        load_clip_tokenizer(hugging_face_folder(tmp_path / "no_end", [*NAMES, "<|startoftext|>"]))
    with refused("merges of '.*other' do not fit its vocabulary"):
        load_clip_tokenizer(hugging_face_folder(tmp_path / "other", merges=["x y"]))
    (folder / "vocab.json").write_text("{")
    (folder / "merges.txt").write_text("")
    with refused("of '.*no_merges' cannot be read"):
        load_clip_tokenizer(folder)
    cut = write(tmp_path / "cut", {OPENAI_FILE: "c a\n" * 99})
    (cut / OPENAI_FILE).write_bytes((cut / OPENAI_FILE).read_bytes()[:-9])
    with refused(f"{OPENAI_FILE}' cannot be read .*; download it again"):
        load_clip_tokenizer(cut)


WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "##s", "!", "cafe")


def test_bert_splits_words_and_masks_padding(tmp_path):
    tokenizer = load_bert_tokenizer(write(tmp_path, {"vocab.txt": "\n".join(WORDS) + "\n"}), length=7)
    ids, mask = tokenizer(["A cats!", "Café dog", "a " * 9, ""])
    assert ids.dtype == mask.dtype == np.int32
    assert ids.tolist() == [[2, 4, 5, 6, 7, 3, 0], [2, 8, 1, 3, 0, 0, 0], [2, 4, 4, 4, 4, 4, 3], [2, 3, 0, 0, 0, 0, 0]]
    assert mask.sum(axis=1).tolist() == [6, 4, 7, 2]
    assert ((ids != 0) == mask).all()
    assert load_bert_tokenizer(tmp_path)(["a"]).ids.shape == (1, 35)


def test_bad_folders_of_bert_are_refused(tmp_path):
    with refused(f"'{tmp_path}' has no vocab.txt"):
        load_bert_tokenizer(tmp_path)
    with refused(r"vocab.txt' has no \[CLS\]"):
        load_bert_tokenizer(write(tmp_path, {"vocab.txt": "[PAD]\n[UNK]\n"}))


def geneval_prompts():
    return (real_data("geneval") / "generation_prompts.txt").read_text().splitlines()


def test_prompts_of_geneval_have_the_recorded_ids():
    prompts = geneval_prompts()
    ids = load_clip_tokenizer(real_data("tokenizers") / "clip", "zero")(prompts)
    assert ids.shape == (553, 77) and sha256(ids) == GENEVAL
    bert = load_bert_tokenizer(real_data("tokenizers") / "bert-base-uncased")(prompts)
    assert sha256(bert.ids) == GENEVAL_BERT


@pytest.mark.filterwarnings("ignore")
def test_ids_are_those_of_open_clip():
    reference = pytest.importorskip("open_clip").tokenizer.SimpleTokenizer()
    others = [
        "I'LL 1234 cats' &amp;lt; “quoted” x² don\u2019t café e\u0301 日本語 🙂🙂 ½ — a_b...!!",
        "",
        "a" * 300,
        "x " * 99,
    ]
    prompts = geneval_prompts() + others
    ids = load_clip_tokenizer(real_data("tokenizers") / "clip", "zero")(prompts)
    np.testing.assert_array_equal(ids, reference(prompts).numpy())


@pytest.mark.filterwarnings("ignore")
def test_ids_are_those_of_bert():
    transformers = pytest.importorskip("transformers")
    folder = real_data("tokenizers") / "bert-base-uncased"
    reference = transformers.BertTokenizer(vocab=str(folder / "vocab.txt"))
    prompts = [*geneval_prompts(), "Café 日本語 don\u2019t x² 🙂", "", "word " * 50]
    expected = reference(prompts, padding="max_length", truncation=True, max_length=35, return_tensors="np")
    ids, mask = load_bert_tokenizer(folder)(prompts)
    np.testing.assert_array_equal(ids, expected["input_ids"])
    np.testing.assert_array_equal(mask, expected["attention_mask"])
