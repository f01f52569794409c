"""QM9's molecules: every layout, exact token ids, splits without leaks, omissions, and messages."""

import hashlib
import lzma
import os
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from diffusion.data import batches, load_dataset
from diffusion.data.symbol_tokenizers import smiles_vocabulary

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
MOLECULES = [spaced.replace(" ", "") for spaced in SPACED]
TOKENS = {spaced.replace(" ", ""): spaced.split() for spaced in SPACED}
LENGTH = 16


def split_of(molecule):
    bucket = int(hashlib.md5(molecule.encode()).hexdigest(), 16) % 100
    return "validation" if bucket < 5 else "test" if bucket < 10 else "train"


def held_out(token):
    """A molecule with this token that is in the test split."""
    return next(text for n in range(1, 1000) if split_of(text := "C" * n + token) == "test")


VOCABULARY = sorted({token for text in MOLECULES if split_of(text) == "train" for token in TOKENS[text]})
BOS, EOS, PAD = range(len(VOCABULARY), len(VOCABULARY) + 3)


def fields(path, **changes):
    settings = dict(source="qm9", path=str(path), tokenizer="smiles", length=LENGTH, vocab_size=len(VOCABULARY) + 3)
    return SimpleNamespace(**(settings | changes))


def rows(dataset, split):
    return dataset.split(split).rows(range(len(dataset.split(split))))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    file = tmp_path_factory.mktemp("qm9") / "QM9_smiles.txt"
    file.write_text("\n".join(MOLECULES) + "\n\n")
    return file


@pytest.fixture(scope="module")
def dataset(file):
    return load_dataset(fields(file))


def test_the_molecules_are_in_every_split():
    assert {split_of(molecule) for molecule in MOLECULES} == {"train", "validation", "test"}
    assert all(split_of(molecule) == "train" for molecule in MOLECULES[1:9])


def test_examples_are_the_tokens_between_specials_that_count(dataset):
    assert (dataset.domain, dataset.labels, dataset.label_names, dataset.image) == ("molecules", 0, (), None)
    assert (dataset.tokenizer.name, dataset.tokenizer.vocab_size) == ("smiles", len(VOCABULARY) + 3)
    for split in ("train", "validation", "test"):
        batch = rows(dataset, split)
        expected = []
        for text in MOLECULES:
            if split_of(text) == split:
                ids = [BOS, *(VOCABULARY.index(token) for token in TOKENS[text]), EOS]
                expected.append(ids + [PAD] * (LENGTH - len(ids)))
        assert sorted(batch["tokens"].tolist()) == sorted(expected)
        assert (batch["weights"] == 1).all() and "label" not in batch
        texts = [text for text in MOLECULES if split_of(text) == split]
        statistics = dataset.statistics[split]
        assert (statistics.examples, statistics.tokens) == (len(texts), len(texts) * LENGTH)
        assert statistics.characters == statistics.bytes == len("".join(texts))


def test_the_order_is_fixed_and_not_that_of_the_file(dataset, file):
    again = load_dataset(fields(file))
    assert again.fingerprint == dataset.fingerprint
    np.testing.assert_array_equal(rows(again, "train")["tokens"], rows(dataset, "train")["tokens"])
    written = [text for text in MOLECULES if split_of(text) == "train"]
    assert [dataset.tokenizer.decode(row) for row in rows(dataset, "train")["tokens"]] != written
    batch = batches(dataset, "train", 4, seed=0)(3)
    assert set(map(dataset.tokenizer.decode, batch["tokens"])) <= set(written)


def test_text_ends_before_the_first_end(dataset):
    tokenizer = dataset.tokenizer
    for text in MOLECULES:
        if split_of(text) == "train":
            ids = tokenizer.encode(text)
            assert [VOCABULARY[index] for index in ids] == TOKENS[text]
            row = np.array([BOS, *ids, EOS, PAD, PAD])
            assert tokenizer.decode_text(row) == tokenizer.decode(row) == text
            assert tokenizer.documents(row) == [text]
    carbon, oxygen = tokenizer.encode("C")[0], tokenizer.encode("O")[0]
    mask = tokenizer.mask_id
    for row, text in (
        ([BOS, carbon, EOS, oxygen, EOS, PAD], "C"),
        ([BOS, carbon, oxygen], "CO"),
        ([BOS, carbon, PAD, oxygen, EOS], "CO"),
        ([carbon, oxygen, EOS, PAD], "CO"),
        ([BOS, carbon, mask, oxygen, EOS, mask], "C▢O"),
        ([BOS, EOS, carbon], ""),
        ([PAD, PAD], ""),
    ):
        assert tokenizer.decode(np.array(row)) == text
        assert tokenizer.documents(np.array(row)) == ([text] if text else [])
    with pytest.raises(ValueError, match=r"data\.tokenizer: 'C\[Xe\]' has SMILES tokens that"):
        tokenizer.encode("C[Xe]")


def in_parquet(folder):
    import pyarrow
    import pyarrow.parquet

    (folder / "data").mkdir()
    for number, part in enumerate((MOLECULES[:20], MOLECULES[20:])):
        # As at Hugging Face: the original strings, and RDKit's, which are read.
        table = pyarrow.table(
            {"smiles": ["?"] * len(part), "canonical_smiles": part, "pos": [[[0.0, 1.0]]] * len(part)}
        )
        pyarrow.parquet.write_table(table, folder / "data" / f"train-{number}.parquet")


def in_tfds(folder):
    import tensorflow_datasets as tfds

    class Qm9(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        code_path = None

        def _info(self):
            features = {"SMILES": tfds.features.Tensor(shape=(), dtype=np.str_), "A": tfds.features.Scalar(np.float32)}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": enumerate({"SMILES": text, "A": 1.0} for text in MOLECULES)}

        def _generate_examples(self):
            raise AssertionError("unused")

    Qm9(data_dir=str(folder), file_format="array_record").download_and_prepare()


LAYOUTS = {
    "xz": lambda folder: (folder / "QM9_smiles.txt.xz").write_bytes(lzma.compress("\n".join(MOLECULES).encode())),
    "parquet": in_parquet,
    "tfds": in_tfds,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_holds_the_same_molecules(layout, tmp_path, dataset):
    LAYOUTS[layout](tmp_path)
    read = load_dataset(fields(tmp_path))
    for split in dataset.splits:
        assert sorted(rows(read, split)["tokens"].tolist()) == sorted(rows(dataset, split)["tokens"].tolist())
    if layout != "tfds":  # which has its own order
        assert read.fingerprint == dataset.fingerprint


def test_repeats_stay_in_one_split(tmp_path):
    (tmp_path / "QM9_smiles.txt").write_text("\n".join(MOLECULES * 2))
    twice = load_dataset(fields(tmp_path))
    sets = [{tuple(row) for row in rows(twice, split)["tokens"].tolist()} for split in twice.splits]
    assert sum(map(len, sets)) == len(set.union(*sets)) == len(set(MOLECULES))
    assert sum(map(len, twice.splits.values())) == 2 * len(MOLECULES)


def test_omitted_molecules_are_counted(tmp_path, dataset):
    long = next("C" * 14 + "O" * n for n in range(2, 99) if split_of("C" * 14 + "O" * n) == "train")
    stranger = held_out("[Xe]")
    (tmp_path / "QM9_smiles.txt").write_text("\n".join([*MOLECULES, long, stranger, "C" * 14]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read = load_dataset(fields(tmp_path, length=17))
    assert [str(warning.message) for warning in caught if "left out" in str(warning.message)] == [
        f"data.length: 1 of {len(MOLECULES) + 3} molecules have more than 15 tokens and are left out",
        "data.path: 1 held-out molecules have tokens that no training molecule has and are left out",
    ]
    assert sum(map(len, read.splits.values())) == len(MOLECULES) + 1
    assert read.tokenizer.fingerprint == dataset.tokenizer.fingerprint


def test_a_set_without_held_out_molecules_is_named(tmp_path):
    (tmp_path / "QM9_smiles.txt").write_text("C\n" if split_of("C") == "train" else "CCO\n")
    symbols = 1 if split_of("C") == "train" else 2
    read = load_dataset(fields(tmp_path, vocab_size=symbols + 3))
    assert list(read.splits) == ["train"]
    with pytest.raises(ValueError, match=r"qm9 has no 'test' examples of length 16"):
        read.split("test")


@pytest.mark.parametrize(
    ("text", "change", "message"),
    [
        (None, {}, r"data\.path: qm9 expects QM9_smiles\.txt or a table .*; pass --config\.data\.path=FOLDER"),
        (None, {"path": ""}, r"data\.path: qm9 expects .*\(data\.path is empty\)"),
        ("\n\n", {}, r"data\.path: .* holds no molecule"),
        ("CCO\n" * 3 + "Hello world\n", {}, r"data\.path: .* holds 'Hello world', which is not SMILES"),
        ("C%12CCC%12\nC%(100)CC%(100)\n", {}, r"data\.path: .* holds 'C%\(100\)CC%\(100\)', which is not SMILES"),
        ("C[NH\n", {}, r"data\.path: .* holds 'C\[NH', which is not SMILES"),
        (MOLECULES, {"vocab_size": 40}, rf"data\.vocab_size: 40 does not fit qm9; .*vocab_size={len(VOCABULARY) + 3}"),
        (MOLECULES, {"tokenizer": "bytes"}, r"data\.tokenizer: 'bytes' does not fit qm9; .*tokenizer=smiles"),
        (MOLECULES, {"tokenizer": "bpe", "vocab_size": 30}, r"data\.vocab_size: 30 .*molecules .* of their own"),
        (MOLECULES, {"packing": "padded"}, r"data\.packing: 'padded' does not fit qm9"),
        (MOLECULES, {"flip": True}, r"data\.flip: qm9 holds no images"),
        (MOLECULES, {"length": 2}, r"data\.length: the train split of qm9 has no example of 2 tokens"),
        (MOLECULES, {"source": "text_files"}, r"data\.tokenizer: 'smiles' is for ready-made arrays"),
    ],
)
@pytest.mark.filterwarnings("ignore:data.length")
def test_fields_and_files_that_do_not_fit_are_named(text, change, message, tmp_path):
    if text is not None:
        (tmp_path / "QM9_smiles.txt").write_text(text if isinstance(text, str) else "\n".join(text))
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(fields(**({"path": tmp_path} | change)))
    assert "\n" not in str(caught.value)


def test_other_tokenizers_cannot_read_molecules(dataset, file, tmp_path):
    (tmp_path / "QM9_smiles.txt").write_text("CCO")
    with pytest.raises(ValueError, match=r"data\.source: qm9 is not text, so tokenizer 'smiles' cannot read it"):
        load_dataset(fields(tmp_path, vocab_size=5), tokenizer=dataset.tokenizer)
    assert load_dataset(fields(file), tokenizer=dataset.tokenizer).fingerprint == dataset.fingerprint


def test_pieces_between_tokens_are_in_the_vocabulary():
    assert smiles_vocabulary(["CClBr[nH]%10%1H"]) == sorted(["C", "Cl", "Br", "[nH]", "%10", "%", "1", "H"])


def test_the_real_qm9_has_its_known_sizes():
    root = os.environ.get("DIFFUSION_TEST_DATA")
    if not root or not (Path(root) / "qm9_smiles").is_dir():
        pytest.skip("set DIFFUSION_TEST_DATA to a folder that holds qm9_smiles/ to check the real data")
    with pytest.warns(UserWarning, match="1 held-out molecules have tokens"):
        data = load_dataset(fields(Path(root) / "qm9_smiles", length=32, vocab_size=44))
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sizes == {"train": 119_771, "validation": 6_626, "test": 6_617}
    split_tokens = {split: np.unique(rows(data, split)["tokens"], axis=0) for split in sizes}
    everything = np.unique(np.concatenate(list(split_tokens.values())), axis=0)
    assert (
        sum(map(len, split_tokens.values())) == len(everything) == 132_751
    )  # distinct molecules, without the omitted one
    ring = [data.tokenizer.bos_id, *data.tokenizer.encode("C1CC1"), data.tokenizer.eos_id]
    assert (everything == np.array(ring + [data.tokenizer.filler_id] * 25)).all(1).any()
