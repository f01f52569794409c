"""Every text source on small files: documents, splits, content hashes, and one-line errors."""

import itertools
import zipfile

import pytest

from diffusion.data import data_files, datasets, load_dataset, local_text, readers, sources
from diffusion.data.settings import DataSettings
from diffusion.data.sources import open_source
from experiments.contents import content_hash
from tests.checks import refused
from tests.data.files import documents, json_lines, split_of, write, write_table, write_tfds

SPLITS = ("train", "validation", "test")


def opened(name, path="", **fields):
    return open_source(DataSettings(source=name, path=str(path), **fields))


def texts_of(source):
    return {split: documents(source, split) for split in source.documents}


def test_python_stdlib_omits_tests_and_splits_by_path(tmp_path):
    code = {f"package/module{i}.py": f"x = {i}\n" for i in range(200)}
    out = ("test/test_x.py", "json/tests/a.py", "site-packages/p.py", "_sysconfigdata_here.py")
    out = dict.fromkeys((*out, "idlelib/idle_test/t.py", "notes.txt"), "no") | {"empty.py": ""}
    write(tmp_path, code | out | {"binary.py": b"\xff\xfe\x00"})
    source = opened("python_stdlib", tmp_path)
    texts = texts_of(source)
    assert sorted(itertools.chain(*texts.values())) == sorted(code.values())
    assert all(text in texts[split_of(name)] for name, text in code.items())
    assert len(texts["train"]) > 160 and texts["validation"] and texts["test"]
    assert opened("python_stdlib", tmp_path).content_hash == source.content_hash
    write(tmp_path, {"package/module3.py": "x = 4\n"})
    assert opened("python_stdlib", tmp_path).content_hash != source.content_hash


def test_the_running_python_has_a_standard_library():
    texts = texts_of(opened("python_stdlib"))
    assert len(texts["train"]) > 100
    assert any("def dumps(" in text for text in itertools.chain(*texts.values()))


def test_text_files_of_a_folder_are_split_by_file(tmp_path):
    files = {f"a/{i}.md": f"text {i} ☃" for i in range(38)} | {"b/deep/er.txt": "\ufeffdeep", "c": "no suffix"}
    write(tmp_path, files | {".hidden": "no", ".git/x": "no", "blank.txt": " \n"})
    write(tmp_path, {"image.bin": b"\x00\x01", "latin.txt": b"caf\xe9"})
    with pytest.warns(UserWarning, match="2 files of .* are not UTF-8"):
        texts = texts_of(opened("text_files", tmp_path))
    assert {split: len(each) for split, each in texts.items()} == {"train": 36, "validation": 2, "test": 2}
    assert sorted(itertools.chain(*texts.values())) == sorted([text.lstrip("\ufeff") for text in files.values()])


def test_links_to_folders_are_followed_once(tmp_path):
    """Also a link to a folder above, and two links to one folder."""
    write(tmp_path, dict.fromkeys(("real/a.txt", "data/deep/b.txt", "data/c.md"), "text"))
    for link in ("data/first", "data/second"):
        (tmp_path / link).symlink_to(tmp_path / "real")
    (tmp_path / "data/deep/above").symlink_to(tmp_path / "data")
    found = [path.relative_to(tmp_path).as_posix() for path in data_files.files_below(str(tmp_path / "data"))]
    assert found == ["data/c.md", "data/deep/b.txt", "data/first/a.txt"]
    assert [path.name for path in data_files.files_below(str(tmp_path / "data"), "*.md")] == ["c.md"]
    assert data_files.files_below("") == data_files.files_below(str(tmp_path / "none")) == []


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    """The tests may run as a user who can read everything."""
    write(tmp_path, {"a.txt": "text", "closed/b.txt": "text"})
    scan = data_files.os.scandir

    def scandir(place):
        if "closed" in str(place):
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr(data_files.os, "scandir", scandir)
    for source in ("text_files", "python_stdlib"):
        with refused(r"data\.path: no permission to read '.*closed'"):
            load_dataset(DataSettings(source=source, path=str(tmp_path), cache_dir=str(tmp_path / "cache")))
    with refused("data: .*closed cannot be read"):
        content_hash(str(tmp_path))


def test_one_text_file_is_cut_in_order_at_blank_lines(tmp_path):
    text = "".join(f"paragraph {i}\nsecond line\n\n" for i in range(400))
    texts = texts_of(opened("text_files", write(tmp_path, {"book.txt": text}) / "book.txt"))
    parts = [part for split in SPLITS for part in texts[split]]
    assert len(parts) == 3 and "".join(parts) == text
    assert all(part.startswith("paragraph") for part in parts)
    assert 0.89 < len(parts[0]) / len(text) < 0.92 and 0.03 < len(parts[1]) / len(text) < 0.06


def test_paragraphs_and_lines_are_documents_on_request(tmp_path):
    lines = [f"line {i}" for i in range(300)] + ["line 7"] * 2
    write(tmp_path, {"lines.txt": "\n".join(lines) + "\n\n"})
    texts = texts_of(opened("text_files", tmp_path / "lines.txt", document="line"))
    assert sorted(itertools.chain(*texts.values())) == sorted(lines)
    assert sum("line 7" in each for each in texts.values()) == 1  # repeats stay in one split
    write(tmp_path / "folder", {f"{i}": f"one {i}\n\n \ntwo {i}\n" for i in range(3)})
    texts = texts_of(opened("text_files", tmp_path / "folder", document="paragraph"))
    assert {split: len(each) for split, each in texts.items()} == dict.fromkeys(SPLITS, 2)


@pytest.mark.parametrize("unit", ["file", "paragraph", "line"])
def test_text_is_read_in_parts(unit, tmp_path, monkeypatch):
    """Plain or compressed, and wherever a part ends."""
    text = "\ufeffone é\r\n \r\n\n  two\n" + "".join(f"line ☃ {n}\n\n" * (1 + n % 2) for n in range(200)) + "end\n \n"
    write(tmp_path, {"plain.txt": text})
    expected = texts_of(opened("text_files", tmp_path / "plain.txt", document=unit))
    for name in ("text.gz", "text.xz", "text.zst"):
        monkeypatch.setattr(readers, "PART", 2**20)
        file = write(tmp_path / name, {"plain.txt" + name[4:]: text}) / ("plain.txt" + name[4:])
        source = opened("text_files", file, document=unit)
        whole = texts_of(source)
        monkeypatch.setattr(readers, "PART", 7)
        source = opened("text_files", file, document=unit)
        assert {split: ["".join(each) for each in parts] for split, parts in texts_of(source).items()} == whole
        assert whole == expected
    if unit == "paragraph":
        assert {"one é\r", "two\nline ☃ 0", "line ☃ 1", "end"} < set(itertools.chain(*whole.values()))


ROWS = [{"body": f"text {n}", "n": n} for n in range(60)] + [{"body": " ", "n": 0}]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.arrow"])
def test_a_column_of_tables_is_text(name, tmp_path):
    if "jsonl" in name:
        write(tmp_path, {name: json_lines(ROWS)})
    else:
        write_table(tmp_path / name, ROWS)
    texts = texts_of(opened("text_files", tmp_path / name, field="body"))
    assert {split: set(each) for split, each in texts.items()} == {
        split: {row["body"] for row in ROWS[:60] if split_of(row["body"]) == split} for split in SPLITS
    }
    write(tmp_path, {"data/test.jsonl": json_lines(ROWS[:2]), "data/train.jsonl": json_lines(ROWS[2:4])})
    split = {"train": ["text 2", "text 3"], "test": ["text 0", "text 1"]}
    assert texts_of(opened("text_files", tmp_path / "data", field="body")) == split
    for path, field, message in (
        (tmp_path / name, "bod", r"data\.path: (line 1|row 0) of .* has no text field; expected bod"),
        (tmp_path / "none", "body", r"data\.path: no table in .*none"),
    ):
        with refused(message):
            load_dataset(DataSettings("text_files", str(path), field=field, tokenizer="bytes", cache_dir=str(tmp_path)))


def test_tables_without_a_column_are_named(tmp_path):
    write_table(tmp_path / "a.parquet", ROWS)
    with refused(r"data\.path: .*a\.parquet is a table; name the column of .* by --config\.data\.field=NAME"):
        opened("text_files", tmp_path)


def test_text8_official_split_and_prefix(tmp_path, monkeypatch):
    monkeypatch.setattr(local_text, "TEXT8", (90, 95, 100))
    text = (" anarchism originated as" * 5)[:100]
    with zipfile.ZipFile(tmp_path / "text8.zip", "w") as archive:
        archive.writestr("text8", text)
    source = opened("text8", tmp_path)
    assert texts_of(source) == {"train": [text[:90]], "validation": [text[90:95]], "test": [text[95:]]}
    assert not source.separated and source.paper_split == "test"
    with refused("has 99 characters, but text8 has 100"):
        opened("text8", write(tmp_path / "short", {"text8": text[:99]}))
    monkeypatch.setattr(local_text, "TEXT8_PREFIX", (6, 8, 10))
    source = opened("text8_prefix", write(tmp_path, {"text8_first_6877825.txt.xz": " anarchism"}))
    assert source.name == "text8_prefix" and documents(source, "test") == ["sm"]


def test_enwiki_articles_and_their_27_symbols(tmp_path):
    assert local_text.symbols27(" Born in 1909,  İzmir—CAFÉ\n") == "born in one nine zero nine i zmir caf"
    for split, texts in {"train": ["One 2!", "Three"], "valid": ["x"], "test": ["y", "☃", "z"]}.items():
        rows = json_lines({"id": str(i), "title": "t", "text": text} for i, text in enumerate(texts))
        write(tmp_path, {f"{split}.jsonl.xz": rows})
    source = opened("enwiki2018", tmp_path)
    assert documents(source, "train") == ["One 2!", "Three"] and documents(source, "validation") == ["x"]
    reduced = opened("enwiki2018", tmp_path, symbols27=True)
    assert documents(reduced, "train") == ["one two three"] and documents(reduced, "test") == ["y z"]
    assert not reduced.separated and reduced.content_hash != source.content_hash


def test_openwebtext_holds_out_the_last_documents(tmp_path):
    write(tmp_path, {"a.jsonl.gz": json_lines({"text": f"a{i}"} for i in range(3))})
    write_table(tmp_path / "b.parquet", [{"text": "b0"}, {"text": "b1"}])
    write_table(tmp_path / "c.arrow", [{"text": "c0"}, {"text": "c1"}])
    write(tmp_path, {"d.txt": "d0\nmore", "ignored.log": "x"})
    expected = {"train": ["a0", "a1", "a2", "b0"], "validation": ["b1", "c0", "c1", "d0\nmore"]}
    assert texts_of(opened("openwebtext", tmp_path, validation_documents=4)) == expected
    with refused(r"data\.validation_documents: 8 of 8 documents"):
        opened("openwebtext", tmp_path, validation_documents=8)


def test_lm1b_from_its_folder_and_from_tfds(tmp_path):
    files = {
        "training-monolingual.tokenized.shuffled/news.en-00001-of-00100": "Yes , it is .\nWhat ?\n",
        "training-monolingual.tokenized.shuffled/news.en-00000-of-00100": "held out\n",
        "heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050": "It is $ 5 .\n",
    }
    source = opened("lm1b", write(tmp_path / "raw", files))
    held_out = {"validation": ["It is $5."], "test": ["It is $5."]}
    assert texts_of(source) == {"train": ["Yes, it is.", "What?"]} | held_out
    assert documents(opened("lm1b", tmp_path / "raw", detokenize=False), "train")[1] == "What ?"
    write_tfds(tmp_path / "tfds", "Lm1b", "text", {"train": ["Yes , it is ."], "test": ["What ?"]})
    prepared = texts_of(opened("lm1b", tmp_path / "tfds"))
    assert prepared == {"train": ["Yes, it is."], "validation": ["What?"], "test": ["What?"]}


ARTICLE = json_lines([{"article_id": "1", "article_text": ["first ( a ) .", "second , b ."]}])
PAPERS = {"val.txt": ARTICLE, "test.jsonl": '{"article": "x , y"}\n'}
PAPER_TEXTS = {"validation": ["first (a) .\nsecond, b."], "test": ["x, y"]}
ZERO_SHOT = [
    (
        "wikitext",
        {"wiki.valid.tokens": " \n = Title = \n \n It was <unk> , then 1 @,@ 000 . \n", "test.txt.xz": " a \n"},
        {"validation": ["", " = Title =\n", "", " It was <unk>, then 1,000.\n"], "test": [" a\n"]},
    ),
    (
        "ptb",
        {"ptb.valid.txt": " it did n't rise N % \n", "ptb.test.jsonl": '{"sentence": "x"}\n'},
        {"validation": ["it didn't rise 1 %"], "test": ["x"]},
    ),
    ("lambada", {"lambada_test.jsonl": json_lines([{"text": "“Go,” she said."}])}, {"test": ['\n"Go," she said.']}),
    (
        "ag_news",
        {"test.csv": '"3","Title, one","Body ""quoted"" ."\n', "train.csv": "text,label\nhello,1\n"},
        {"train": ["hello"], "test": ['Title, one Body "quoted" .']},
    ),
    ("ag_news", {"test.csv": 'Class Index,Title,Description\n1,"A",B\n'}, {"test": ["A B"]}),
    ("scientific_papers_arxiv", PAPERS, PAPER_TEXTS),
    ("scientific_papers_pubmed", PAPERS, PAPER_TEXTS),
]


@pytest.mark.parametrize(("name", "files", "texts"), ZERO_SHOT)
def test_zero_shot_corpora_read_rows_as_the_papers_do(name, files, texts, tmp_path):
    write(tmp_path, files)
    assert texts_of(opened(name, tmp_path)) == texts
    if name == "lambada":  # a single file is the test split
        assert texts_of(opened(name, tmp_path / "lambada_test.jsonl")) == texts
        assert opened(name, tmp_path).paper_split == "test"


def test_missing_files_are_named_in_one_line(tmp_path):
    cases = [("nonsense", "", r"data\.source: unknown 'nonsense'; known: ag_news, .*wikitext")]
    for name in sources.TEXTS.keys() - {"python_stdlib"}:
        cases += [(name, "", r"data\.path: "), (name, tmp_path / "none", r"data\.path: ")]
    write(tmp_path / "empty_files", {"a.txt": "  \n"})
    cases += [("text_files", tmp_path / "empty_files", "holds no UTF-8 text"), ("python_stdlib", tmp_path, "data.path")]
    for name, path, words in cases:
        with refused(words):
            opened(name, path)
    for name, facts in datasets.TEXTS.items():
        with pytest.raises(ValueError, match=r"pass --config\.data\.path=FOLDER\. To get it: ") as caught:
            opened(name, tmp_path / "none")
        assert facts.expected in str(caught.value)


def test_large_contents_are_hashed_by_their_ends_and_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(data_files, "WHOLE_FILE_HASH_LIMIT", 3 * 1024**2)
    middle = bytes(1024**2)
    file = tmp_path / "file"

    def hashed(content):
        file.write_bytes(content)
        return data_files.content_hash([("name", file)])

    hashes = {hashed(content) for content in (b"a" + middle * 3, b"b" + middle * 3, b"a" + middle * 3 + b"x")}
    assert len(hashes) == 3
    assert hashed(b"a" + middle + b"y" + middle[1:] + middle + b"x") in hashes  # the middle is not read
