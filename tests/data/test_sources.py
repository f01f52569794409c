"""Every text source on small files: documents, splits, content hashes, and one-line errors."""

import gzip
import hashlib
import io
import itertools
import json
import lzma
import os
import zipfile
from pathlib import Path

import pytest

from diffusion.data import datasets, local_text, readers, sources
from diffusion.data.settings import DataSettings
from diffusion.data.sources import open_source


def read(source, split):
    return list(source.documents[split]())


def opened(name, path="", **fields):
    return open_source(DataSettings(source=name, path=str(path), **fields))


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_python_stdlib_omits_tests_and_splits_by_path(tmp_path):
    code = {f"package/module{i}.py": f"x = {i}\n" for i in range(200)}
    out = {
        "test/test_x.py": "no",
        "json/tests/a.py": "no",
        "site-packages/p.py": "no",
        "_sysconfigdata_here.py": "no",
        "idlelib/idle_test/t.py": "no",
        "binary.py": b"\xff\xfe\x00",
        "notes.txt": "no",
        "empty.py": "",
    }
    write(tmp_path, code | out)
    source = opened("python_stdlib", tmp_path)
    texts = {split: read(source, split) for split in ("train", "validation", "test")}
    assert sorted(itertools.chain(*texts.values())) == sorted(code.values())
    for name, text in code.items():
        bucket = int(hashlib.md5(name.encode()).hexdigest(), 16) % 100
        split = "validation" if bucket < 5 else "test" if bucket < 10 else "train"
        assert text in texts[split]
    assert len(texts["train"]) > 160 and texts["validation"] and texts["test"]
    before = source.content_hash
    assert opened("python_stdlib", tmp_path).content_hash == before
    write(tmp_path, {"package/module3.py": "x = 4\n"})
    assert opened("python_stdlib", tmp_path).content_hash != before


def test_the_running_python_has_a_standard_library():
    source = opened("python_stdlib")
    assert len(read(source, "train")) > 100
    assert any("def dumps(" in text for split in source.documents for text in read(source, split))


def test_text_files_of_a_folder_are_split_by_file(tmp_path):
    files = {f"a/{i}.md": f"text {i} ☃" for i in range(38)} | {"b/deep/er.txt": "\ufeffdeep", "c": "no suffix"}
    write(tmp_path, files | {".hidden": "no", ".git/x": "no", "blank.txt": " \n"})
    (tmp_path / "image.bin").write_bytes(b"\x00\x01")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.warns(UserWarning, match="2 files of .* are not UTF-8"):
        source = opened("text_files", tmp_path)
    texts = {split: read(source, split) for split in source.documents}
    assert {split: len(documents) for split, documents in texts.items()} == {"train": 36, "validation": 2, "test": 2}
    assert sorted(itertools.chain(*texts.values())) == sorted([text.lstrip("\ufeff") for text in files.values()])


def test_one_text_file_is_cut_in_order_at_blank_lines(tmp_path):
    text = "".join(f"paragraph {i}\nsecond line\n\n" for i in range(400))
    file = tmp_path / "book.txt"
    file.write_text(text)
    source = opened("text_files", file)
    parts = [read(source, split) for split in ("train", "validation", "test")]
    assert all(len(part) == 1 for part in parts)
    assert "".join(part[0] for part in parts) == text
    assert all(part[0].startswith("paragraph") for part in parts)
    assert 0.89 < len(parts[0][0]) / len(text) < 0.92 and 0.03 < len(parts[1][0]) / len(text) < 0.06


def test_paragraphs_and_lines_are_documents_on_request(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("".join(f"line {i}\n" for i in range(300)) + "line 7\nline 7\n\n")
    source = opened("text_files", file, document="line")
    texts = {split: read(source, split) for split in source.documents}
    assert sorted(itertools.chain(*texts.values())) == sorted([f"line {i}" for i in range(300)] + ["line 7"] * 2)
    assert sum("line 7" in documents for documents in texts.values()) == 1  # repeats stay in one split
    write(tmp_path / "folder", {f"{i}": f"one {i}\n\n \ntwo {i}\n" for i in range(3)})
    source = opened("text_files", tmp_path / "folder", document="paragraph")
    assert [len(read(source, split)) for split in ("train", "validation", "test")] == [2, 2, 2]


def test_text8_official_split_and_prefix(tmp_path, monkeypatch):
    monkeypatch.setattr(local_text, "TEXT8_SPLITS", {"train": (0, 90), "validation": (90, 95), "test": (95, 100)})
    text = " anarchism originated as"
    text = (text * 5)[:100]
    with zipfile.ZipFile(tmp_path / "text8.zip", "w") as archive:
        archive.writestr("text8", text)
    source = opened("text8", tmp_path)
    assert [read(source, split)[0] for split in ("train", "validation", "test")] == [text[:90], text[90:95], text[95:]]
    assert not source.separated and source.paper_split == "test"
    write(tmp_path / "short", {"text8": text[:99]})
    with pytest.raises(ValueError, match="has 99 characters, but text8 has 100"):
        opened("text8", tmp_path / "short")
    monkeypatch.setattr(local_text, "TEXT8_PREFIX_SPLITS", {"train": (0, 6), "validation": (6, 8), "test": (8, 10)})
    write(tmp_path, {"text8_first_6877825.txt.xz": lzma.compress(b" anarchism")})
    source = opened("text8_prefix", tmp_path)
    assert source.name == "text8_prefix" and read(source, "test") == ["sm"]


def test_symbols27():
    assert local_text.symbols27(" Born in 1909,  İzmir—CAFÉ\n") == "born in one nine zero nine i zmir caf"
    assert local_text.symbols27("☃") == ""


def test_enwiki_articles_and_their_27_symbols(tmp_path):
    for split, rows in {"train": ["One 2!", "Three"], "valid": ["x"], "test": ["y", "☃", "z"]}.items():
        packed = json_lines({"id": str(i), "title": "t", "text": row} for i, row in enumerate(rows))
        write(tmp_path, {f"{split}.jsonl.xz": lzma.compress(packed.encode())})
    source = opened("enwiki2018", tmp_path)
    assert read(source, "train") == ["One 2!", "Three"] and read(source, "validation") == ["x"]
    reduced = opened("enwiki2018", tmp_path, symbols27=True)
    assert read(reduced, "train") == ["one two three"] and read(reduced, "test") == ["y z"]
    assert not reduced.separated and reduced.content_hash != source.content_hash


def test_enwiki_27_symbols_of_the_real_data_have_the_recorded_hashes():
    root = os.environ.get("DIFFUSION_TEST_DATA")
    if not root or not (Path(root) / "enwiki2018").is_dir():
        pytest.skip("set DIFFUSION_TEST_DATA to a folder that holds enwiki2018/ to check the real data")
    source = opened("enwiki2018", Path(root) / "enwiki2018", symbols27=True)
    recorded = {
        "train": (55_566_282, "940f9f762ebdda58690ab3f09bfbe99e50ebe262d0918806423df834b1c0aed7"),
        "validation": (540_737, "e56ebc95ae70d784d20c0100f8edfe7f3ec2fb29ec030ead7fad660f82d1942e"),
        "test": (589_101, "eac2628297bbfe9cbf2e745428cae5d08faebff1e279da374a45078d51b2b533"),
    }
    for split, (length, sha256) in recorded.items():
        (text,) = read(source, split)
        assert (len(text), hashlib.sha256(text.encode()).hexdigest()) == (length, sha256)


def test_openwebtext_holds_out_the_last_documents(tmp_path):
    import pyarrow
    import pyarrow.parquet

    write(tmp_path, {"a.jsonl.gz": gzip.compress(json_lines({"text": f"a{i}"} for i in range(3)).encode())})
    pyarrow.parquet.write_table(pyarrow.table({"text": ["b0", "b1"]}), tmp_path / "b.parquet")
    table = pyarrow.table({"text": ["c0", "c1"]})
    with pyarrow.OSFile(str(tmp_path / "c.arrow"), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    write(tmp_path, {"d.txt": "d0\nmore", "ignored.log": "x"})
    source = opened("openwebtext", tmp_path, validation_documents=4)
    assert read(source, "train") == ["a0", "a1", "a2", "b0"]
    assert read(source, "validation") == ["b1", "c0", "c1", "d0\nmore"]
    with pytest.raises(ValueError, match=r"data\.validation_documents: 8 of 8 documents"):
        opened("openwebtext", tmp_path, validation_documents=8)


def test_lm1b_from_its_folder_and_from_tfds(tmp_path):
    import tensorflow_datasets as tfds

    write(
        tmp_path / "raw",
        {
            "training-monolingual.tokenized.shuffled/news.en-00001-of-00100": "Yes , it is .\nWhat ?\n",
            "training-monolingual.tokenized.shuffled/news.en-00000-of-00100": "held out\n",
            "heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050": "It is $ 5 .\n",
        },
    )
    source = opened("lm1b", tmp_path / "raw")
    assert read(source, "train") == ["Yes, it is.", "What?"]
    assert read(source, "validation") == read(source, "test") == ["It is $5."]
    assert read(opened("lm1b", tmp_path / "raw", detokenize=False), "train")[1] == "What ?"

    class Lm1b(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.1.0")
        code_path = None

        def _info(self):
            features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {"train": self._rows(["Yes , it is ."]), "test": self._rows(["What ?"])}

        def _rows(self, texts):
            yield from enumerate({"text": text} for text in texts)

        def _generate_examples(self):
            raise AssertionError("unused")

    Lm1b(data_dir=str(tmp_path / "tfds"), file_format="array_record").download_and_prepare()
    prepared = opened("lm1b", tmp_path / "tfds")
    assert read(prepared, "train") == ["Yes, it is."] and read(prepared, "validation") == ["What?"]


def test_zero_shot_corpora_read_rows_as_the_papers_do(tmp_path):
    wiki = " \n = Title = \n \n It was <unk> , then 1 @,@ 000 . \n"
    write(tmp_path / "wiki", {"wiki.valid.tokens": wiki, "test.txt.xz": lzma.compress(b" a \n")})
    source = opened("wikitext", tmp_path / "wiki")
    assert read(source, "validation") == ["", " = Title =\n", "", " It was <unk>, then 1,000.\n"]
    assert read(source, "test") == [" a\n"] and "train" not in source.documents

    write(tmp_path / "ptb", {"ptb.valid.txt": " it did n't rise N % \n", "ptb.test.jsonl": '{"sentence": "x"}\n'})
    source = opened("ptb", tmp_path / "ptb")
    assert read(source, "validation") == ["it didn't rise 1 %"] and read(source, "test") == ["x"]

    write(tmp_path / "lambada", {"lambada_test.jsonl": json_lines([{"text": "“Go,” she said."}])})
    source = opened("lambada", tmp_path / "lambada")
    assert read(source, "test") == ['\n"Go," she said.'] and source.paper_split == "test"
    assert read(opened("lambada", tmp_path / "lambada" / "lambada_test.jsonl"), "test") == read(source, "test")

    news = io.StringIO('"3","Title, one","Body ""quoted"" ."\n')
    write(tmp_path / "news", {"test.csv": news.getvalue(), "train.csv": "text,label\nhello,1\n"})
    source = opened("ag_news", tmp_path / "news")
    assert read(source, "test") == ['Title, one Body "quoted" .'] and read(source, "train") == ["hello"]
    write(tmp_path / "news2", {"test.csv": 'Class Index,Title,Description\n1,"A",B\n'})
    assert read(opened("ag_news", tmp_path / "news2"), "test") == ["A B"]

    rows = [{"article_id": "1", "article_text": ["first ( a ) .", "second , b ."]}]
    write(tmp_path / "papers", {"val.txt": json_lines(rows), "test.jsonl": '{"article": "x , y"}\n'})
    for name in ("scientific_papers_arxiv", "scientific_papers_pubmed"):
        source = opened(name, tmp_path / "papers")
        assert read(source, "validation") == ["first (a) .\nsecond, b."] and read(source, "test") == ["x, y"]


def test_missing_files_are_named_in_one_line(tmp_path):
    write(tmp_path / "empty_files", {"a.txt": "  \n"})
    cases = [("nonsense", "", r"data\.source: unknown 'nonsense'; known: ag_news, .*wikitext")]
    for name in sources.TEXTS:
        if name != "python_stdlib":
            cases += [(name, "", r"data\.path: "), (name, tmp_path / "none", r"data\.path: ")]
    cases += [("text_files", tmp_path / "empty_files", "holds no UTF-8 text"), ("python_stdlib", tmp_path, "data.path")]
    for name, path, words in cases:
        with pytest.raises(ValueError, match=words) as caught:
            opened(name, path)
        assert "\n" not in str(caught.value)
    for name, facts in datasets.TEXTS.items():
        with pytest.raises(ValueError, match=r"pass --config\.data\.path=FOLDER\. To get it: ") as caught:
            opened(name, tmp_path / "none")
        assert facts.expected in str(caught.value)


def test_large_contents_are_hashed_by_their_ends_and_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "WHOLE_FILE_HASH_LIMIT", 3 * 1024**2)
    middle = bytes(1024**2)
    hashes = set()
    for number, content in enumerate([b"a" + middle * 3, b"b" + middle * 3, b"a" + middle * 3 + b"x"]):
        file = tmp_path / f"{number}"
        file.write_bytes(content)
        hashes.add(readers.content_hash([("name", file)]))
    assert len(hashes) == 3
    file.write_bytes(b"a" + middle + b"y" + middle[1:] + middle + b"x")  # the middle is not read
    assert readers.content_hash([("name", file)]) in hashes
