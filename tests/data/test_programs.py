"""CoNaLa and HumanEval: documents, splits without leaks, and one-line errors."""

import gzip
import hashlib
import json
import lzma
import os
from pathlib import Path

import pytest

from diffusion.data import load_dataset
from diffusion.data.settings import DataSettings
from diffusion.data.sources import open_source

PAIRS = [
    {"intent": f"how {i}?", "rewritten_intent": f"do  `{i}`\r\nnow", "snippet": f"f({i})\ng()", "question_id": i // 2}
    for i in range(200)
]
TESTS = [{"intent": "sort `x`", "rewritten_intent": None, "snippet": "sorted(x)", "question_id": 999}]
PROBLEMS = [
    {
        "task_id": "HumanEval/0",
        "prompt": "def f(x):\n",
        "canonical_solution": "    y = x\n\n    return y\n",
        "test": "",
    },
    {"task_id": "HumanEval/1", "prompt": "def g(x):\n", "canonical_solution": "    return 1", "test": ""},
]


def opened(name, path):
    return open_source(DataSettings(source=name, path=str(path)))


def read(source, split):
    return list(source.documents[split]())


def json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_conala(folder, train=PAIRS, test=TESTS):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "conala-train.json").write_text(train if isinstance(train, str) else json.dumps(train))
    (folder / "conala-test.json.xz").write_bytes(lzma.compress(json.dumps(test).encode()))
    return folder


def real_data(name):
    root = os.environ.get("DIFFUSION_TEST_DATA")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"set DIFFUSION_TEST_DATA to a folder that holds {name}/ to check the real data")
    return Path(root) / name


def test_conala_writes_the_intent_above_the_snippet(tmp_path):
    source = opened("conala", write_conala(tmp_path / "a" / "b").parent)
    assert (source.name, source.paper_split, source.separated) == ("conala", "test", True)
    assert read(source, "test") == ["# sort `x`\nsorted(x)\n"]
    assert read(source, "train")[0] == "# do `0` now\nf(0)\ng()\n"  # the comment stays one line


def test_conala_holds_out_whole_questions(tmp_path):
    source = opened("conala", write_conala(tmp_path))

    def held_out(pair):
        return int(hashlib.md5(str(pair["question_id"]).encode()).hexdigest(), 16) % 100 < 5

    for split, out in (("train", False), ("validation", True)):
        expected = [f"# do `{i}` now\nf({i})\ng()\n" for i, pair in enumerate(PAIRS) if held_out(pair) == out]
        assert read(source, split) == expected
    assert 2 <= len(read(source, "validation")) <= 30


def test_the_hash_is_that_of_the_content_not_of_the_compression(tmp_path):
    first = opened("conala", write_conala(tmp_path / "1"))
    folder = write_conala(tmp_path / "2")
    (folder / "conala-train.json.xz").write_bytes(lzma.compress((folder / "conala-train.json").read_bytes()))
    (folder / "conala-train.json").unlink()
    assert opened("conala", folder).content_hash == first.content_hash
    assert opened("conala", write_conala(tmp_path / "3", test=TESTS * 2)).content_hash != first.content_hash


def test_the_shallowest_file_is_read(tmp_path):
    write_conala(tmp_path / "old", train=PAIRS[:4])
    write_conala(tmp_path)
    (tmp_path / "conala-train.json.bak").write_text("no")
    (tmp_path / "conala-test.json").mkdir()
    assert len(read(opened("conala", tmp_path), "train")) > 100


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    folder = tmp_path_factory.mktemp("humaneval") / "deep" / "er"
    folder.mkdir(parents=True)
    (folder / "HumanEval.jsonl.gz").write_bytes(gzip.compress(json_lines(PROBLEMS).encode()))
    return folder


def test_humaneval_is_for_evaluation_alone(problems, tmp_path):
    source = opened("humaneval", problems.parent.parent)
    assert set(source.documents) == {"test"} and source.paper_split == "test"
    assert read(source, "test") == ["def f(x):\n    y = x\n\n    return y\n", "def g(x):\n    return 1"]
    file = problems / "HumanEval.jsonl.gz"
    assert read(opened("humaneval", file), "test") == read(source, "test")
    settings = DataSettings(
        source="humaneval", path=str(problems), tokenizer="bytes", length=16, packing="padded", cache_dir=str(tmp_path)
    )
    data = load_dataset(settings)
    assert len(data.split("test")) == 2
    for split in ("train", "validation"):
        with pytest.raises(ValueError, match=rf"humaneval has no '{split}' examples .*\(it has: test\)"):
            data.split(split)


def test_missing_and_damaged_files_are_named_in_one_line(tmp_path):
    pair = PAIRS[0]
    conala = [
        ("", "conala expects conala-train.json and conala-test.json"),
        ("[" + json.dumps(pair), r"conala-train\.json is not JSON \(line 1: "),
        ("", "is not JSON"),
        ("[" * 100_000, "nested too deep"),
        ('[{"question_id": ' + "1" * 5000 + "}]", "digits"),
        ("{}", "is not a JSON list of records"),
        ("[]", "is not a JSON list of records"),
        ("[1]", "is not a JSON list of records"),
        ([pair, {**pair, "snippet": None}], "record 2 of .* has no snippet"),
        ([{**pair, "snippet": " \n"}], "record 1 of .* has no snippet"),
        ([{"snippet": "x", "question_id": 1, "intent": 3}], "has no rewritten_intent or intent"),
        ([{**pair, "question_id": True}], "record 1 of .* has no question_id"),
        ([{**pair, "question_id": 999}], "question 999 is in .*train.* and in .*test"),
    ]
    for number, (train, words) in enumerate(conala):
        folder = tmp_path / str(number)
        if number:
            write_conala(folder, train)
        with pytest.raises(ValueError, match=words) as caught:
            opened("conala", folder)
        check(caught.value)
    (folder / "conala-train.json").unlink()
    for path in (folder, folder / "conala-test.json.xz"):  # one file of two
        with pytest.raises(ValueError, match=r"expects conala-train\.json and"):
            opened("conala", path)

    whole = gzip.compress(json_lines(PROBLEMS).encode())
    humaneval = [
        ("HumanEval.jsonl.gz", whole[:-12], "is damaged"),
        ("HumanEval.jsonl.gz", b"plain", "is damaged"),
        ("HumanEval.jsonl.xz", lzma.compress(b"x")[:-9], "is damaged"),
        ("HumanEval.jsonl", b"\xff", "is not UTF-8"),
        ("HumanEval.jsonl", b"", "holds no problem"),
        ("HumanEval.jsonl", b'{"task_id": \n', "line 1 of .* is not JSON"),
        ("HumanEval.jsonl", b"[1]\n", "line 1 of .* is not a JSON object"),
        ("HumanEval.jsonl", b'{"task_id": "a", "prompt": "b"}\n', "line 1 of .* has no canonical_solution"),
        ("other.jsonl", json_lines(PROBLEMS).encode(), r"humaneval expects HumanEval\.jsonl"),
    ]
    for number, (name, content, words) in enumerate(humaneval):
        folder = tmp_path / f"problems{number}"
        folder.mkdir()
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=words) as caught:
            opened("humaneval", folder)
        check(caught.value)


def check(error):
    said = str(error)
    assert said.startswith("data.path: ") and said.count("data.path: ") == 1 and "\n" not in said
    assert "https://" in said  # the origin


def test_the_real_conala():
    source = opened("conala", real_data("conala"))
    texts = {split: read(source, split) for split in source.documents}
    assert {split: len(documents) for split, documents in texts.items()} == {
        "train": 2258,
        "validation": 121,
        "test": 500,
    }
    assert all(text.startswith("# ") and "\n" in text.strip() for documents in texts.values() for text in documents)


def test_the_real_humaneval_is_python():
    folder = real_data("humaneval")
    texts = read(opened("humaneval", folder), "test")
    assert len(texts) == 164
    for text in texts:
        compile(text, "humaneval", "exec")
