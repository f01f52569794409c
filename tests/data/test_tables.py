"""Tables in every format: the same rows, texts as they are, and one-line errors that name the row."""

import csv
import io

import pytest

from diffusion.data import DataSettings, data_files, load_dataset, readers, tables
from diffusion.data.sources import open_source
from tests.checks import refused
from tests.data.files import documents, json_lines, sizes, write, write_table

# What readers that guess turn into missing values, numbers, dates or other rows.
TEXTS = ["NA", "null", "007", "1e5", "2018-01-01", "2018-01-01T00:00:00Z", 'say "hi"', '"quoted"', "a\rb", " a ", "☃"]
TEXTS += ["two\nlines", "line\u2028separator", "", "True"]
ROWS = [{"text": text, "number": str(number)} for number, text in enumerate(TEXTS)]


def separated(delimiter):
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows([["text", "number"], *(row.values() for row in ROWS)])
    return stream.getvalue()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.xz", "a.csv", "a.csv.gz", "a.tsv", "a.parquet", "a.arrow"])
def test_every_format_holds_the_same_rows(name, tmp_path):
    file = tmp_path / name
    if file.suffix in (".parquet", ".arrow"):
        write_table(file, ROWS)
    else:
        text = {".jsonl": json_lines(ROWS), ".csv": separated(","), ".tsv": separated("\t")}[data_files.kind(file)]
        write(tmp_path, {name: "\ufeff" + text})
    assert [row for _, row in tables.rows(file)] == ROWS


def test_quotes_of_a_tsv_may_be_text(tmp_path):
    for rows in (
        [["1", '"To be or not to be - who wrote it', "2"], ["3", 'who said "I think', "4"]],
        [["1", '"one', "2"], ["3", 'two"', "4"]],  # as quoted values these would be one row of three values
        [["1", '5" disk', "2"], ["3", "ten\rstill ten", '"']],
    ):
        write(tmp_path, {"a.tsv": "".join("\t".join(row) + "\r\n" for row in [["a", "b", "c"], *rows])})
        assert [list(row.values()) for _, row in tables.rows(tmp_path / "a.tsv")] == rows


def test_only_a_newline_ends_a_line(tmp_path):
    write(tmp_path, {"lines.txt": "\ufeffone\r\ntwo\rstill two\n\nfour\u2028\x0c\x85still four\nlast\r"})
    expected = ["one", "two\rstill two", "", "four\u2028\x0c\x85still four", "last\r"]
    assert list(readers.lines(tmp_path / "lines.txt")) == expected


def write_splits(folder, parts):
    for split, texts in parts.items():
        for number, text in enumerate(texts):
            write_table(folder / f"{split}-0000{number}-of-0000{len(texts)}.parquet", [{"text": text}])


def test_a_data_set_is_read_from_its_parts_and_as_from_the_hub(tmp_path):
    parts = {"train": ["one", "two"], "test": ["three"]}
    write_splits(tmp_path / "set" / "data", parts)
    for path in (f"{tmp_path}/set", f"hf://{tmp_path}/set"):  # the library loads a folder as it loads a name
        settings = DataSettings("ag_news", path, "bytes", length=4, cache_dir=str(tmp_path / "cache"))
        source = open_source(settings)
        assert {split: documents(source, split) for split in source.documents} == parts
    assert sizes(load_dataset(settings)) == {"train": 4, "test": 3}
    write_splits(tmp_path / "set" / "other", parts)
    with refused(r"data\.path: the test split is in .*data and in .*other; pass one of them"):
        open_source(DataSettings("ag_news", f"{tmp_path}/set"))


def test_a_hub_out_of_reach_is_one_line(monkeypatch):
    def refuse(*args, **options):
        raise ConnectionError("no network\nand more")

    monkeypatch.setattr(tables.library(), "load_dataset", refuse)
    with refused(r"data\.path: cannot load 'hf://a/b:c' \(no network\); pass a folder"):
        open_source(DataSettings("wmt14", "hf://a/b:c"))
