"""Tables in every format: the same rows, texts as they are, and one-line errors that name the row."""

import csv
import gzip
import io
import json
import lzma

import pyarrow
import pyarrow.parquet
import pytest

from diffusion.data import DataSettings, load_dataset, readers, tables
from diffusion.data.sources import open_source

# What readers that guess turn into missing values, numbers, dates or other rows.
TEXTS = ["NA", "null", "007", "1e5", "2018-01-01", "2018-01-01T00:00:00Z", 'say "hi"', '"quoted"', "a\rb", " a ", "☃"]
TEXTS += ["two\nlines", "line\u2028separator", "", "True"]
ROWS = [{"text": text, "number": str(number)} for number, text in enumerate(TEXTS)]


def json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def separated(rows, **options):
    stream = io.StringIO()
    csv.writer(stream, **options).writerows([["text", "number"], *(row.values() for row in rows)])
    return stream.getvalue()


def write(folder, name):
    table, file = pyarrow.Table.from_pylist(ROWS), folder / name
    if file.suffix == ".parquet":
        pyarrow.parquet.write_table(table, file)
    elif file.suffix == ".arrow":
        with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        text = {".jsonl": json_lines(ROWS), ".csv": separated(ROWS), ".tsv": separated(ROWS, delimiter="\t")}
        pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(file.suffix, bytes)
        file.write_bytes(pack(b"\xef\xbb\xbf" + text[readers.kind(file)].encode()))
    return file


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.xz", "a.csv", "a.csv.gz", "a.tsv", "a.parquet", "a.arrow"])
def test_every_format_holds_the_same_rows(name, tmp_path):
    assert [row for _, row in tables.rows(write(tmp_path, name))] == ROWS


def test_quotes_of_a_tsv_may_be_text(tmp_path):
    file = tmp_path / "a.tsv"
    for rows in (
        [["1", '"To be or not to be - who wrote it', "2"], ["3", 'who said "I think', "4"]],
        [["1", '"one', "2"], ["3", 'two"', "4"]],  # as quoted values these would be one row of three values
        [["1", '5" disk', "2"], ["3", "ten\rstill ten", '"']],
    ):
        file.write_bytes("".join("\t".join(row) + "\r\n" for row in [["a", "b", "c"], *rows]).encode())
        assert [list(row.values()) for _, row in tables.rows(file)] == rows


def test_only_a_newline_ends_a_line(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_bytes("\ufeffone\r\ntwo\rstill two\n\nfour\u2028\x0c\x85still four\nlast\r".encode())
    assert list(readers.lines(file)) == ["one", "two\rstill two", "", "four\u2028\x0c\x85still four", "last\r"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "ok"}\n\n{"text": \n', r"line 3 of .*a\.jsonl is not JSON"),
        ("a.jsonl", '{"text": "ok"}\n[1]\n', r"line 2 of .*a\.jsonl is not a JSON object"),
        ("a.jsonl", '{"words": "ok"}\n', r"line 1 of .*a\.jsonl has no text field; expected text"),
        ("a.jsonl", '{"text": [{"type": "p"}]}\n', r"line 1 of .*a\.jsonl has no text field"),
        ("a.jsonl", '{"text": "\\ud83d"}\n', r"line 1 of .*a\.jsonl is not Unicode text"),
        ("a.csv", 'text,label\n"a, b",1\n\nonly one\n', r"line 4 of .*a\.csv is damaged \(1 fields"),
        ("a.csv", "text,label\na,b,1\n", r"line 2 of .*a\.csv is damaged \(3 fields"),
        ("a.csv", 'text,label\n"a" b,1\n', r"line 2 of .*a\.csv is damaged"),
        ("a.csv", 'text,label\n"a,1\n', r"line 2 of .*a\.csv is damaged"),
        ("a.tsv", "text\tlabel\na\n", r"line 2 of .*a\.tsv is damaged \(1 fields"),
        ("a.parquet", "PAR1 but no more", r"a\.parquet is damaged or not a Parquet file"),
        ("a.arrow", "no table", r"a\.arrow is damaged"),
    ],
)
def test_damaged_rows_are_named(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"data\.path: .*{message}") as caught:
        for place, row in tables.rows(tmp_path / name):
            readers.text_of(row, ("text",), place)
    assert "\n" not in str(caught.value)


def parquet_splits(folder, parts):
    folder.mkdir(parents=True, exist_ok=True)
    for split, texts in parts.items():
        for number, text in enumerate(texts):
            table = pyarrow.table({"text": [text]})
            pyarrow.parquet.write_table(table, folder / f"{split}-0000{number}-of-0000{len(texts)}.parquet")


def test_a_data_set_is_read_from_its_parts_and_as_from_the_hub(tmp_path):
    parts = {"train": ["one", "two"], "test": ["three"]}
    parquet_splits(tmp_path / "set" / "data", parts)
    for path in (f"{tmp_path}/set", f"hf://{tmp_path}/set"):  # the library loads a folder as it loads a name
        settings = DataSettings("ag_news", path, cache_dir=str(tmp_path / "cache"))
        source = open_source(settings)
        assert {split: list(read()) for split, read in source.documents.items()} == parts
    data = load_dataset(DataSettings("ag_news", path, "bytes", length=4, cache_dir=str(tmp_path / "cache")))
    assert {split: len(data.split(split)) for split in parts} == {"train": 4, "test": 3}
    parquet_splits(tmp_path / "set" / "other", parts)
    with pytest.raises(ValueError, match=r"data\.path: the test split is in .*data and in .*other; pass one of them"):
        open_source(DataSettings("ag_news", f"{tmp_path}/set"))


def test_a_hub_out_of_reach_is_one_line(monkeypatch):
    def refuse(*args, **options):
        raise ConnectionError("no network\nand more")

    monkeypatch.setattr(tables.library(), "load_dataset", refuse)
    with pytest.raises(ValueError, match=r"data\.path: cannot load 'hf://a/b:c' \(no network\); pass a folder"):
        open_source(DataSettings("wmt14", "hf://a/b:c"))


def test_pairs_may_be_nested(tmp_path):
    rows = [{"translation": {"de": " Guten Tag", "en": "Good day "}}]
    (tmp_path / "train").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train" / "0000.parquet")
    pairs = list(open_source(DataSettings("iwslt14", str(tmp_path))).documents["train"]())
    assert pairs == [("Guten Tag", "Good day", ())]
