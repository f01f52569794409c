"""QM9's molecules: every layout, exact token ids, splits without leaks, omissions, and messages."""

import warnings

import numpy as np
import pytest

from diffusion.data import batches, load_dataset
from diffusion.data.symbol_tokenizers import smiles, smiles_vocabulary
from tests.checks import refused
from tests.data.files import fields, rows, sizes, split_of, write, write_table, write_tfds

# Lists of tokens, so that expected ids do not depend on the tokenizer.
SPACED = [
    "C",
    "C C O",
    "C [C@H] 1 [C@@H] ( C ) [C@H] 1 N C = O",
    "Cl C ( Br ) F",
    "c 1 c c c n 1",
    "C %12 C C C %12",
    "F / C = C \\ F",
    "[NH3+] C C ( = O ) [O-]",
    "C # N",
    "O = S ( = O ) ( O ) O",
] + [" ".join("C" * n + end) for n in range(1, 12) for end in ("O", "N", "F", "=O", "#N")]
TOKENS = {spaced.replace(" ", ""): spaced.split() for spaced in SPACED}
MOLECULES = list(TOKENS)
PARTS = {split: [text for text in MOLECULES if split_of(text) == split] for split in ("train", "validation", "test")}
VOCABULARY = sorted({token for text in PARTS["train"] for token in TOKENS[text]})
BOS, EOS, PAD = range(len(VOCABULARY), len(VOCABULARY) + 3)


def qm9(path, **changes):
    return fields("qm9", path, **({"vocab_size": len(VOCABULARY) + 3} | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("qm9"), {"QM9_smiles.txt": "\n".join(MOLECULES) + "\n\n"})


@pytest.fixture(scope="module")
def dataset(folder):
    return load_dataset(qm9(folder))


def test_examples_are_the_tokens_between_specials_that_count(dataset):
    assert (dataset.domain, dataset.labels, dataset.label_names, dataset.image) == ("molecules", 0, (), None)
    assert (dataset.tokenizer.name, dataset.tokenizer.vocab_size) == ("smiles", len(VOCABULARY) + 3)
    for split, texts in PARTS.items():
        batch = rows(dataset, split)
        expected = []
        for text in texts:
            ids = [BOS, *(VOCABULARY.index(token) for token in TOKENS[text]), EOS]
            expected.append(ids + [PAD] * (16 - len(ids)))
        assert sorted(batch["tokens"].tolist()) == sorted(expected) != []
        assert (batch["weights"] == 1).all() and "label" not in batch
        statistics = dataset.statistics[split]
        assert (statistics.examples, statistics.tokens) == (len(texts), len(texts) * 16)
        assert statistics.characters == statistics.bytes == len("".join(texts))


def test_the_order_is_fixed_and_not_that_of_the_file(dataset, folder):
    again = load_dataset(qm9(folder), tokenizer=dataset.tokenizer)
    assert again.fingerprint == dataset.fingerprint
    tokens = rows(dataset, "train")["tokens"]
    np.testing.assert_array_equal(rows(again, "train")["tokens"], tokens)
    assert [dataset.tokenizer.decode(row) for row in tokens] != PARTS["train"]
    batch = batches(dataset, "train", 4, seed=0)(3)
    assert set(map(dataset.tokenizer.decode, batch["tokens"])) <= set(PARTS["train"])


def test_text_ends_before_the_first_end(dataset):
    tokenizer = dataset.tokenizer
    for text in PARTS["train"]:
        ids = tokenizer.encode(text)
        assert [VOCABULARY[index] for index in ids] == TOKENS[text]
        row = np.array([BOS, *ids, EOS, PAD, PAD])
        assert tokenizer.decode_text(row) == tokenizer.decode(row) == text
        assert tokenizer.documents(row) == [text]
    carbon, oxygen, mask = VOCABULARY.index("C"), VOCABULARY.index("O"), tokenizer.mask_id
    for row, text in (
        ([BOS, carbon, EOS, oxygen, EOS, PAD], "C"),
        ([BOS, carbon, oxygen], "CO"),
        ([BOS, carbon, PAD, oxygen, EOS], "CO"),
        ([BOS, carbon, mask, oxygen, EOS, mask], "C▢O"),
        ([BOS, EOS, carbon], ""),
    ):
        assert tokenizer.decode(np.array(row)) == text
        assert tokenizer.documents(np.array(row)) == ([text] if text else [])
    with refused(r"data\.tokenizer: 'C\[Xe\]' has SMILES tokens that"):
        tokenizer.encode("C[Xe]")
    # Pieces between tokens are in the vocabulary.
    assert smiles_vocabulary(["CClBr[nH]%10%1H"]) == sorted(["C", "Cl", "Br", "[nH]", "%10", "%", "1", "H"])


def in_parquet(folder):
    for number, part in enumerate((MOLECULES[:20], MOLECULES[20:])):
        # As at Hugging Face: the original strings, and RDKit's, which are read.
        table = [{"smiles": "?", "canonical_smiles": text, "pos": [[0.0, 1.0]]} for text in part]
        write_table(folder / "data" / f"train-{number}.parquet", table)


LAYOUTS = {
    "xz": lambda folder: write(folder, {"QM9_smiles.txt.xz": "\n".join(MOLECULES)}),
    "parquet": in_parquet,
    "tfds": lambda folder: write_tfds(folder, "Qm9", "SMILES", {"train": MOLECULES}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_holds_the_same_molecules(layout, tmp_path, dataset):
    LAYOUTS[layout](tmp_path)
    assert load_dataset(qm9(tmp_path)).fingerprint == dataset.fingerprint


def test_omitted_molecules_are_counted(tmp_path, dataset):
    long = next("C" * 14 + "O" * n for n in range(2, 99) if split_of("C" * 14 + "O" * n) == "train")
    stranger = next(text for n in range(1, 1000) if split_of(text := "C" * n + "[Xe]") == "test")
    write(tmp_path, {"QM9_smiles.txt": "\n".join([*MOLECULES, long, stranger, "C" * 15])})
    with warnings.catch_warnings(record=True, action="always") as caught:
        read = load_dataset(qm9(tmp_path, length=17))
    assert [str(warning.message) for warning in caught if "left out" in str(warning.message)] == [
        f"data.length: 1 of {len(MOLECULES) + 3} molecules have more than 15 tokens and are left out; "
        "--config.data.length=18 holds all",
        "data.path: 1 held-out molecules have tokens that no training molecule has and are left out",
    ]
    assert sum(sizes(read).values()) == len(MOLECULES) + 1
    assert read.tokenizer.fingerprint == dataset.tokenizer.fingerprint


def test_ring_closures_from_100_on_are_tokens():
    symbols = smiles_vocabulary(["C%(100)CC%(100)", "C%12CC%12(F)"])
    assert symbols == ["%(100)", "%12", "(", ")", "C", "F"]
    tokenizer = smiles(symbols)
    assert tokenizer.decode_text(tokenizer.encode("C%(100)CC%(100)")) == "C%(100)CC%(100)"
