"""A user's own molecules: ways of writing them, splits without leaks, omissions, messages."""

import hashlib

import pytest

from diffusion.data import load_dataset
from tests.checks import refused
from tests.data.files import fields, loaded, sizes, texts_of, write

SPLITS = ("train", "validation", "test")


# What is easily cut into wrong tokens: elements of two letters, brackets, and numbers of rings; and chains, which are
# all that is held out.
MOLECULES = ["ClCCBr", "N[C@@H](C)O", "[nH]1cccc1", "C%12CCC%12", "C%(100)CC%(100)", "F/C=C\\CO", "[Na+].[Cl-]", "C#N"]
MOLECULES += ["C" * n + end for n in range(1, 10) for end in ("O", "N", "")]
BY_MD5 = sorted(MOLECULES, key=lambda text: int(hashlib.md5(text.encode()).hexdigest(), 16))
PARTS = {"validation": BY_MD5[:2], "test": BY_MD5[2:4], "train": BY_MD5[4:]}
TABLE = [{"id": "CCC", "Canonical_SMILES": text, "mine": text} for text in MOLECULES]


def separated(mark):
    cells = [[*TABLE[0]], *([*row.values()] for row in TABLE)]
    return "\n".join(mark.join(row) for row in cells) + "\n"


WRITTEN = {
    "plain": {"mine.txt": "\n".join(MOLECULES)},
    "names": {"mine.smi": "".join(f"{text}\tmolecule {number}\r\n\n" for number, text in enumerate(MOLECULES))},
    "header": {"mine.smiles.gz": "\n".join(["#SMILES name", *(f"  {text} x" for text in MOLECULES)])},
    "unknown": {"mine.dat": "\n".join(MOLECULES)},
    "csv": {"mine.csv": separated(",")},
    "tsv": {"mine.TSV": separated("\t")},
    "folder": {"a.smi": "\n".join(MOLECULES[:9]), "b/c.smi.gz": "\n".join(MOLECULES[9:]), "README.txt": "About them"},
}


def smiles(path, **changes):
    return fields("smiles", path, **({"field": "", "labels": "none"} | changes))


@pytest.mark.parametrize("kind", WRITTEN)
def test_every_way_of_writing_molecules_is_read(kind, tmp_path):
    folder = write(tmp_path, WRITTEN[kind])
    path = folder if kind == "folder" else next(folder.iterdir())
    for field in ("", "mine") if kind in ("csv", "tsv") else ("",):
        dataset, said = loaded(smiles(path, field=field))
        assert not said
        assert {split: sorted(texts_of(dataset, split)) for split in SPLITS} == {
            split: sorted(texts) for split, texts in PARTS.items()
        }
    symbols = [dataset.tokenizer.decode([token]) for token in range(dataset.tokenizer.vocab_size)]
    assert {"Cl", "Br", "[C@@H]", "[nH]", "%12", "%(100)", "[Na+]"} < set(symbols)


def test_molecules_that_are_left_out_are_counted(tmp_path):
    texts = [*MOLECULES, "C" * 20, "C" * 30, "CCO", "CCO"]
    table = write_rows(tmp_path / "mine.csv", [("smiles", "x"), *((text, "1") for text in texts), ("", "2"), ("", "3")])
    dataset, said = loaded(smiles(table))
    assert sum(sizes(dataset).values()) == len(texts) - 2
    assert said == [
        f"data.path: 2 rows of {table} have no molecule and are left out",
        f"data.length: 2 of {len(texts)} molecules have more than 14 tokens and are left out; --config.data.length=32 "
        "holds all",
    ]
    table = write_rows(tmp_path / "mine.csv", [("smiles",), *((text,) for text in texts)])
    with refused(r"data\.length: 39 of 39 molecules have more than 0 tokens, and no training mol.*length=32 holds all"):
        load_dataset(smiles(table, length=2))


def write_rows(file, cells):
    file.write_text("\n".join(map(",".join, cells)) + "\n")
    return file


def test_names_of_files_give_splits_of_molecules(tmp_path):
    parts = {"train": ["CO", "CN", "CCO", "CCN"], "test": ["CCCO", "CO"]}
    write(tmp_path, {f"mine_{split}.smi": "\n".join(texts) for split, texts in parts.items()})
    dataset, said = loaded(smiles(tmp_path))
    found = {split: sorted(texts_of(dataset, split)) for split in SPLITS}
    assert found == {split: sorted(parts.get(split, parts["test"])) for split in SPLITS}
    assert said == ["data.path: 1 held-out molecules are training molecules too"]


@pytest.mark.parametrize(
    ("name", "content", "changes", "message"),
    [
        ("a.smi", "CCO\nC1CC1 ring\nEthanol CCO\n", {}, r"path: line 3 of .*a\.smi holds 'Ethanol', which is not SM"),
        ("a.smi", "", {}, r"path: .* holds no molecule; pass another"),
        ("a.smi", "SMILES\n", {}, r"path: .* holds no molecule; pass another"),
        ("a.smi", b"CCO\nCC M\xfcller\n", {}, r"path: line 2 of .*a\.smi is not UTF-8 text"),
        ("a.csv", b"smiles,x\nCCO,M\xfcller\n", {}, r"path: line 2 of .*a\.csv is not UTF-8 text"),
        ("a.tsv", b"smiles\tx\nCCO\tM\xfcller\n", {}, r"path: line 2 of .*a\.tsv is not UTF-8 text"),
        (
            "a.csv",
            "smiles,x\nCCO,1\nXYZ,2\n",
            {},
            r"path: line 3 of .*a\.csv holds 'XYZ', which is not SMILES",
        ),
        (
            "a.csv",
            "mol,x\nCCO,1\n",
            {},
            r"field: .*a\.csv has no column canonical_smiles or smi.*, of mol, x",
        ),
        ("a.csv", "mol,x\nCCO,1\n", {"field": "y"}, r"field: .*a\.csv has no column y; pass .*, of mol, x"),
        ("a.smi", "CCO\nCCN\nCCO\n", {}, r"path: .* is too small at data\.length=16 \(2 different parts cannot be"),
        ("a.smi", "CCO\n", {"labels": "file"}, r"labels: 'file' is for fasta, not for smiles"),
    ],
)
def test_damaged_molecules_are_named(name, content, changes, message, tmp_path):
    with refused(rf"^data\.{message}"):
        load_dataset(smiles(write(tmp_path, {name: content}), **changes))
