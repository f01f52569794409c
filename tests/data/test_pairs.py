"""Pairs: the synthetic tasks, files in their published layouts, and exact counts of omitted pairs."""

import numpy as np
import pytest

from diffusion.data import DataSettings, load_dataset, pair_tasks
from diffusion.data.pair_tasks import DIALECTS, SHARED, SOURCE_WORDS, dictionary, spell_number, translations
from diffusion.data.pairs import text_of
from diffusion.data.sources import open_source
from diffusion.data.tokenizers import UNKNOWN_TEXT, words_tokenizer
from experiments.contents import content_hash, reread
from tests.checks import refused
from tests.data.files import documents, json_lines, split_of, write, write_table


def pair_settings(source="dialects", path="", **fields):
    lengths = dict(tokenizer="words", vocab_size=4096, source_length=16, length=16)
    return DataSettings(source, str(path), **(lengths | fields))


def open_pairs(name, path="", reverse=False):
    return open_source(pair_settings(name, path, reverse=reverse))


def sides(source, split):
    """Source and target of each pair."""
    return [pair[:2] for pair in documents(source, split)]


@pytest.fixture(scope="module")
def dialects():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair_tasks, "SENTENCES", 9000)
        yield load_dataset(pair_settings(source_length=9, length=9))


def test_dialects_share_a_third_of_their_words():
    table = dictionary()
    assert table.shape == (SOURCE_WORDS, DIALECTS) and table.max() < 50 and table.min() >= 0
    kinds = [len(set(row)) for row in table.tolist()]
    assert kinds.count(1) == SHARED and kinds.count(DIALECTS) == SOURCE_WORDS - SHARED
    for dialect in table.T.tolist():
        assert len(set(dialect)) == SOURCE_WORDS
    one, other = translations([0, 1, 2], False), translations([0, 1, 2], True)
    assert one[0] == other[0] and one[2] == other[2]
    first, second, third = one[1].split()
    assert other[1].split() == [second, first, third]


def test_dialects_have_four_references_and_no_source_in_two_splits(dialects):
    test = dialects.split("test")
    sources, references = test.texts(range(50))
    assert len(test) > 200 and 7_600 < len(dialects.split("train")) < 8_400
    for source, known in zip(sources, references, strict=True):
        assert split_of(source) == "test" and 4 <= len(source.split()) <= 8 and len(known) == DIALECTS
    assert len(set(test.texts(range(len(test)))[0])) == len(test)
    # The target is one of them, and the source does not determine which.
    rows = test.rows(range(50))
    targets = [text_of(dialects.tokenizer, row) for row in rows["tokens"]]
    spoken = [known.index(target) for known, target in zip(references, targets, strict=True)]
    assert set(spoken) == set(range(DIALECTS))
    frequent = np.bincount(dialects.split("train").rows(range(2000))["source"].ravel(), minlength=80)
    s0, s23 = (dialects.tokenizer.encode(word)[0] for word in ("s0", "s23"))
    assert frequent[s0] / frequent[s23] == pytest.approx(24**0.7, rel=0.4)


NUMBERS = {
    305: "three hundred and five",
    1005: "one thousand and five",
    120_000: "one hundred and twenty thousand",
    999_000_000_099: "nine hundred and ninety nine billion and ninety nine",
    7_000_014_019: "seven billion fourteen thousand and nineteen",
    0: "zero",
}


def test_number_words_both_ways(monkeypatch):
    monkeypatch.setattr(pair_tasks, "NUMBERS", 3000)
    one, other = (
        load_dataset(pair_settings("number_words", reverse=turn, source_length=32, length=32)) for turn in (False, True)
    )
    sources, targets = one.split("test").texts(range(20))
    for words, (digits,) in zip(sources, targets, strict=True):
        assert spell_number(int(digits.replace(" ", ""))) == words
    assert other.split("test").texts([0])[0] == [targets[0][0]]
    statistics = one.statistics["validation"]
    assert statistics.left_out == statistics.empty == 0 and statistics.examples > 100
    assert {number: spell_number(number) for number in NUMBERS} == NUMBERS
    with refused(r"data.source: number_words knows numbers of up to 12 digits"):
        spell_number(10**12)
    with refused(r"data.reverse: dialects are translated one way"):
        open_pairs("dialects", reverse=True)


def test_tatoeba_splits_by_source_and_groups_references(tmp_path):
    lines = [f"Sentence {i}.\tSatz {i}.\tlicence" for i in range(200)]
    lines += [f"Sentence {i}.\tAnderer Satz {i}." for i in range(200)]
    folder = write(tmp_path / "tatoeba_en_de", {"deu.txt.xz": "\n".join(lines) + "\n"})
    source = open_pairs("tatoeba", tmp_path)
    parts = {split: documents(source, split) for split in source.documents}
    assert all(split_of(pair.source) == split for split, pairs in parts.items() for pair in pairs)
    assert len(parts["train"]) + 2 * len(parts["validation"]) + 2 * len(parts["test"]) == 400
    numbers = [pair.source.removeprefix("Sentence ") for pair in parts["test"]]
    assert [pair.references for pair in parts["test"]] == [(f"Satz {n}", f"Anderer Satz {n}") for n in numbers]
    # The file is sorted by length, but the first pairs of a split are not the shortest.
    assert len(numbers) > 2 and numbers != sorted(numbers, key=float)
    turned = open_pairs("tatoeba", folder, reverse=True)
    assert all("Satz" in pair.source and split_of(pair.source) == "test" for pair in documents(turned, "test"))
    assert turned.content_hash != source.content_hash
    with refused(r"data.path: tatoeba expects deu.txt or deu.txt.xz"):
        open_pairs("tatoeba", tmp_path / "nowhere")


LINES = [(f"Satz {i % 150}", f"sentence {i}") for i in range(200)]
# What ends no line: a bare carriage return, U+2028, a form feed, NEL.
LINES[3], LINES[7] = ("rot\rgrün\u2028blau", "red green\x0c blue\x85end"), ("", "no source")
PLAIN = [pair for index, pair in enumerate(LINES) if index != 3]
GERMAN, ENGLISH = ("".join(f"{pair[side]}\r\n" for pair in LINES) for side in (0, 1))
TABBED = "".join(f"{source}\t{target}\n" for source, target in PLAIN)
COLUMNS = dict(source_field="de", target_field="en")
NUMBERS_OF_COLUMNS = dict(source_field="1", target_field="2")
FORMS = {
    "two files": ("a.de,b.en.gz", {"a.de": f"\ufeff{GERMAN}", "b.en.gz": ENGLISH}, {}),
    "a folder of two files": ("", {"train.de": GERMAN, "train.en": ENGLISH.strip()}, COLUMNS),
    "tabs": ("a.tsv", {"a.tsv": f"de\ten\n{TABBED}"}, COLUMNS),
    "tabs without names": ("a.txt.gz", {"a.txt.gz": f"\ufeff{TABBED}"}, NUMBERS_OF_COLUMNS),
    "commas": ("a.csv", {"a.csv": "de,en\r\n" + "".join(f'"{s}","{t}"\r\n' for s, t in LINES)}, COLUMNS),
    "JSON lines": ("a.jsonl", {"a.jsonl": json_lines({"n": 1, "source": s, "target": t} for s, t in LINES)}, {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_users_pairs_are_split_by_source(form, tmp_path):
    path, files, names = FORMS[form]
    folder = write(tmp_path / "data", files | {"notes.txt": "x"})
    path = ",".join(f"{folder}/{name}" for name in path.split(","))
    source = open_source(pair_settings("pair_files", path, **names))
    parts = {split: documents(source, split) for split in source.documents}
    assert all(split_of(pair.source) == split for split, pairs in parts.items() for pair in pairs)
    found = [(pair.source, each) for pairs in parts.values() for pair in pairs for each in pair.references or pair[1:2]]
    assert sorted(found) == sorted(PLAIN if "tabs" in form else LINES)
    assert len({pair.source for pair in parts["test"]}) == len(parts["test"]) > 2
    turned = open_source(pair_settings("pair_files", path, reverse=True, **names))
    assert documents(turned, "test")[-1].source.startswith("sentence") and turned.content_hash != source.content_hash
    with pytest.warns(UserWarning, match=r"data\.path: 1 pairs of the .* split of pair_files lack a side: left out"):
        data = load_dataset(pair_settings("pair_files", path, cache_dir=str(tmp_path / "cache"), **names))
    words = {word for pair in parts["train"] for side in pair[:2] for word in side.split()}
    assert data.tokenizer.vocab_size == len(words) + 2  # those of training, the unknown word, and the end


def test_a_users_splits_are_read_as_they_are(tmp_path):
    rows = {split: [{"a": f"{split} {i}", "b": "x"} for i in range(3)] for split in ("train", "dev")}
    folder = write(tmp_path, {f"{split}.jsonl": json_lines(each) for split, each in rows.items()})
    source = open_source(pair_settings("pair_files", folder, source_field="a", target_field="b"))
    assert sides(source, "train") == [(f"train {i}", "x") for i in range(3)]
    assert sides(source, "validation") == sides(source, "test") == [(f"dev {i}", "x") for i in range(3)]
    with refused(r"data\.source_field: line 1 of .*train\.jsonl has no 'source' but 'a', 'b'; pass --config"):
        documents(open_source(pair_settings("pair_files", folder)), "train")
    with refused(r"data\.path: .* has notes\.txt, not train\.source and .*; pass their suffixes as"):
        open_source(pair_settings("pair_files", write(tmp_path / "other", {"notes.txt": "x"})))
    write(tmp_path, {"a.de": "grün\n".encode("latin1"), "a.en": "green\n"})
    for path, message in (("a.de,a.en", "a.de is not UTF-8 text"), ("a.de,none", r"none is not a file; pass .*=A,B")):
        with refused(rf"data\.path: .*{message}"):
            documents(open_pairs("pair_files", ",".join(f"{tmp_path}/{name}" for name in path.split(","))), "train")


def test_two_files_have_one_content(tmp_path, monkeypatch):
    write(tmp_path, {"a.de": "eins\n", "b.en": "one\n"})
    monkeypatch.chdir(tmp_path)
    first = content_hash(f"{tmp_path}/a.de,{tmp_path}/b.en")
    assert content_hash("a.de, b.en") == first != content_hash("b.en,a.de") and not content_hash("a.de,none")
    write(tmp_path, {"b.en": "two\n"})
    reread()
    assert content_hash("a.de,b.en") != first


def test_two_files_per_split(tmp_path):
    german, english = "Guten Tag\n Zwei\n", "Good day\nTwo \n"
    files = {"train.de.gz": german, "train.en.gz": english, "valid.de": german, "valid.en": english}
    folder = write(tmp_path, files | {"test.de-en.de": "Drei\n", "test.de-en.en": "Three\n"})
    source = open_pairs("iwslt14", folder)
    assert sides(source, "train") == sides(source, "validation") == [("Guten Tag", "Good day"), ("Zwei", "Two")]
    assert sides(source, "test") == [("Drei", "Three")]
    assert sides(open_pairs("wmt14", folder), "test") == [("Three", "Drei")]
    assert sides(open_pairs("wmt14", folder, reverse=True), "test") == [("Drei", "Three")]
    with refused(r"data.path: wmt16 expects train.ro and train.en"):
        open_pairs("wmt16", folder)
    with refused(r"data.source: unknown 'wmt99'; known: ag_news, .*wmt16"):
        open_pairs("wmt99")


def test_tables(tmp_path):
    rows = [{"translation": {"ro": f"unu {i}", "en": f"one {i}"}} for i in range(3)]
    for part in range(2):
        write_table(tmp_path / "wmt" / "ro-en" / f"train-0000{part}-of-00002.parquet", rows)
    assert sides(open_pairs("wmt16", tmp_path / "wmt"), "train") == [(f"unu {i}", f"one {i}") for i in range(3)] * 2

    lines = json_lines({"src": f"a {i}", "trg": f"b {i}"} for i in range(3))
    folder = write(tmp_path / "diffuseq", {"train.jsonl": lines, "valid.jsonl": lines, "test.jsonl": lines})
    for name in ("qqp", "wiki_auto"):
        assert sides(open_pairs(name, folder), "test") == [(f"a {i}", f"b {i}") for i in range(3)]

    table = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    table += "".join(f'{i}\t1\t2\t"Why, {i}?"\tHow {i}?\t{i % 2}\n' for i in range(300))
    quora = open_pairs("qqp", write(tmp_path / "quora", {"quora_duplicate_questions.tsv": table}))
    parts = {split: documents(quora, split) for split in quora.documents}
    assert sum(map(len, parts.values())) == 150
    assert all(split_of(pair.source) == split for split, pairs in parts.items() for pair in pairs)
    assert parts["train"][0].source.startswith("Why, ")

    news = {"train.article.txt": "Long news .\n", "train.title.txt": "News\n"}
    news |= {"valid.article.filter.txt": "x\n", "valid.title.filter.txt": "y\n"}
    gigaword = open_pairs("gigaword", write(tmp_path / "giga", news))
    assert sides(gigaword, "train") == [("Long news .", "News")] and sides(gigaword, "validation") == [("x", "y")]


def test_pairs_that_exceed_a_length_are_counted_with_a_warning(tmp_path):
    long = "eins zwei drei vier fünf"
    files = {"train.de": f"kurz\n{long}\n\n", "train.en": "short\nshort\nshort\n"}
    files |= {"test.de": f"{long}\nkurz\n", "test.en": f"short\n{long}\n"}
    cache = str(tmp_path / "cache")
    settings = pair_settings("iwslt14", write(tmp_path, files), source_length=4, length=5, cache_dir=cache)
    for _ in range(2):  # also when they come from the cache
        with pytest.warns(UserWarning) as said:
            data = load_dataset(settings)
        assert {str(one.message) for one in said} == {
            "data.length: 1 pairs of the train split of iwslt14 exceed 4 source or 5 target tokens: left out",
            "data.path: 1 pairs of the train split of iwslt14 lack a side: left out",
            "data.length: 2 pairs of the test split of iwslt14 exceed 4 source or 5 target tokens: cut",
        }
    train, test = data.statistics["train"], data.split("test")
    assert (train.documents, train.examples, train.left_out, train.empty) == (3, 1, 1, 1)
    assert (train.source_tokens, train.tokens) == (2, 2) and len(test) == 2
    # Test sets stay complete: tokens are cut, texts are not.
    rows = test.rows([0, 1])
    assert rows["source_weights"].sum(1).tolist() == [4, 2] and rows["weights"].sum(1).tolist() == [2, 5]
    assert rows["source"][0, 3] == data.tokenizer.eos_id == rows["tokens"][1, 4]
    assert (rows["tokens"][0, 2:] == data.tokenizer.pad_id).all() and rows["weights"].dtype == np.float32
    assert data.padded and data.domain == "pairs"
    assert test.texts([0, 1]) == ([long, "kurz"], [("short",), (long,)])
    with refused(r"texts of the training split are not kept"):
        data.split("train").texts([0])
    with refused(r"has no 'validation' examples .*\(it has: train, test\)"):
        data.split("validation")
    with refused(r"data.length: 1 is too small"):
        load_dataset(pair_settings(length=1))


def test_one_bpe_for_both_sides(tmp_path):
    german, english = ("".join(f"{word} {i % 7}\n" for i in range(40)) for word in ("Straßenbahn", "Tramway"))
    folder = write(tmp_path / "text", {"train.de": german, "train.en": english, "test.de": german, "test.en": english})
    fields = dict(tokenizer="bpe", vocab_size=300, source_length=24, length=24, cache_dir=str(tmp_path / "cache"))
    data = load_dataset(pair_settings("iwslt14", folder, lower=True, **fields))
    assert data.tokenizer.name == "bpe"
    for word in ("straßenbahn", "tramway"):  # both sides have become single tokens
        assert len(data.tokenizer.encode(word)) <= 2
    rows = data.split("test").rows([5])
    assert text_of(data.tokenizer, rows["tokens"][0]) == "tramway 5"
    assert text_of(data.tokenizer, rows["source"][0]) == "straßenbahn 5"
    other = load_dataset(pair_settings("iwslt14", folder, **fields))
    assert other.tokenizer.fingerprint != data.tokenizer.fingerprint
    # Bytes need no training; a tokenizer may be passed.
    fields["tokenizer"] = "bytes"
    assert load_dataset(pair_settings("iwslt14", folder, **fields)).tokenizer.vocab_size == 257
    assert load_dataset(pair_settings("iwslt14", folder, **fields), data.tokenizer).tokenizer is data.tokenizer
    with refused(r"data.tokenizer: unknown 'sounds'; known for pairs: words, bpe, bytes, file"):
        load_dataset(pair_settings("iwslt14", folder, tokenizer="sounds"))


def test_words_have_one_id_each_and_others_share_one():
    tokenizer = words_tokenizer(["a", "bä"])
    assert tokenizer.encode("bä a zzz a").tolist() == [1, 0, 2, 0]
    assert text_of(tokenizer, np.array([1, 0, 2, 3, 0, 0])) == f"bä a {UNKNOWN_TEXT}"
    assert text_of(tokenizer, np.array([1, tokenizer.mask_id, 0, tokenizer.pad_id])) == "bä a"
    encoded = tokenizer.encode_spans(["bä a"])[0]
    assert encoded.characters.tolist() == [2, 1] and encoded.bytes.tolist() == [3, 1]
