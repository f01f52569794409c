"""CoNaLa and HumanEval: documents, splits without leaks, and one-line errors."""

import json

from diffusion.data import load_dataset
from diffusion.data.settings import DataSettings
from diffusion.data.sources import open_source
from tests.data.files import documents, json_lines, split_of, write

PAIRS = [
    {"intent": f"how {i}?", "rewritten_intent": f"do  `{i}`\r\nnow", "snippet": f"f({i})\ng()", "question_id": i // 2}
    for i in range(200)
]
TESTS = [{"intent": "sort `x`", "rewritten_intent": None, "snippet": "sorted(x)", "question_id": 999}]
PROBLEMS = json_lines(
    [
        {"task_id": "0", "prompt": "def f(x):\n", "canonical_solution": "    y = x\n\n    return y\n", "test": ""},
        {"task_id": "1", "prompt": "def g(x):\n", "canonical_solution": "    return 1", "test": ""},
    ]
)


def opened(name, path):
    return open_source(DataSettings(source=name, path=str(path)))


def write_conala(folder, train=PAIRS, test=TESTS):
    train = train if isinstance(train, str) else json.dumps(train)
    return write(folder, {"conala-train.json": train, "conala-test.json.xz": json.dumps(test)})


def test_conala_writes_the_intent_above_the_snippet_and_holds_out_whole_questions(tmp_path):
    source = opened("conala", write_conala(tmp_path / "a" / "b").parent)
    assert (source.name, source.paper_split, source.separated) == ("conala", "test", True)
    assert documents(source, "test") == ["# sort `x`\nsorted(x)\n"]
    expected = {"train": [], "validation": []}
    for i, pair in enumerate(PAIRS):
        split = "validation" if split_of(str(pair["question_id"])) == "validation" else "train"
        expected[split].append(f"# do `{i}` now\nf({i})\ng()\n")  # the comment stays one line
    assert {split: documents(source, split) for split in expected} == expected
    assert 2 <= len(expected["validation"]) <= 30


def test_the_hash_is_that_of_the_content_not_of_the_compression(tmp_path):
    first = opened("conala", write_conala(tmp_path / "1"))
    file = write_conala(tmp_path / "2") / "conala-train.json"
    write(tmp_path / "2", {"conala-train.json.xz": file.read_text()})
    file.unlink()
    assert opened("conala", tmp_path / "2").content_hash == first.content_hash
    assert opened("conala", write_conala(tmp_path / "3", test=TESTS * 2)).content_hash != first.content_hash


def test_the_shallowest_file_is_read(tmp_path):
    write_conala(tmp_path / "old", train=PAIRS[:4])
    write_conala(tmp_path)
    write(tmp_path, {"conala-train.json.bak": "no"})
    (tmp_path / "conala-test.json").mkdir()
    assert len(documents(opened("conala", tmp_path), "train")) > 100


def test_humaneval_is_for_evaluation_alone(tmp_path):
    folder = write(tmp_path / "deep" / "er", {"HumanEval.jsonl.gz": PROBLEMS})
    source = opened("humaneval", tmp_path)
    assert set(source.documents) == {"test"} and source.paper_split == "test"
    assert documents(source, "test") == ["def f(x):\n    y = x\n\n    return y\n", "def g(x):\n    return 1"]
    assert documents(opened("humaneval", folder / "HumanEval.jsonl.gz"), "test") == documents(source, "test")
    settings = DataSettings("humaneval", str(folder), "bytes", length=16, packing="padded", cache_dir=str(tmp_path))
    assert len(load_dataset(settings).split("test")) == 2
