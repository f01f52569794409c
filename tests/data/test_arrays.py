"""Ready-made arrays: generated sources, labels, flips, and messages for bad input."""

import numpy as np
import pytest

from diffusion.data import batches, evaluation_batches, load_dataset
from diffusion.data.arrays import mirror
from diffusion.data.synthetic import density_table
from tests.checks import refused
from tests.data.files import fields, rows


def test_density_points_follow_the_table():
    table = density_table(32)
    assert table.shape == (32, 32) and table.dtype == np.float64 and (table > 0).all()
    assert table.sum() == pytest.approx(1, abs=1e-12)
    data = load_dataset(fields("density2d"))
    tokens = rows(data, "train")["tokens"]
    assert tokens.shape == (1_000_000, 2) and data.image is None
    counts = np.bincount(tokens[:, 0] * 32 + tokens[:, 1], minlength=1024).reshape(32, 32)
    chi_squared = np.sum((counts - 1e6 * table) ** 2 / (1e6 * table))
    assert abs(chi_squared - 1023) < 5 * np.sqrt(2 * 1023)
    # The axes are not exchangeable: a transposed table would not fit.
    assert np.sum((counts.T - 1e6 * table) ** 2 / (1e6 * table)) > 1e5
    assert load_dataset(fields("density2d")).fingerprint == data.fingerprint
    assert len(data.split("validation")) == len(data.split("test")) == 20_000
    assert not np.array_equal(rows(data, "validation")["tokens"], rows(data, "test")["tokens"])


def test_the_label_of_a_blob_is_its_quadrant():
    examples = rows(load_dataset(fields("blobs")), "validation")
    bright = examples["tokens"].reshape(-1, 2, 4, 2, 4).sum((2, 4)).reshape(-1, 4)
    assert (bright.argmax(1) == examples["label"]).all() and set(examples["label"]) == {0, 1, 2, 3}
    assert examples["tokens"].min() == 0 and examples["tokens"].max() == 15


def test_flipping_mirrors_each_row_of_each_color():
    tokens = np.arange(2 * 12).reshape(2, 12)  # (c, h, w) = (2, 2, 3)
    mirrored = mirror(tokens, (2, 3, 2), np.array([True, False]))
    assert mirrored.tolist() == [[2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9], list(range(12, 24))]


def test_flips_are_a_function_of_seed_step_and_row_in_training_alone():
    plain, mirrored = load_dataset(fields("blobs")), load_dataset(fields("blobs", flip=True))

    def tokens(data, step, split="train", **hosts):
        return batches(data, split, 64, seed=1, **hosts)(step)["tokens"]

    before, after = tokens(plain, 3), tokens(mirrored, 3)
    changed = (after == mirror(before, plain.image, np.ones(64, bool))).all(1)
    np.testing.assert_array_equal(after[~changed], before[~changed])
    assert 16 < changed.sum() < 48
    np.testing.assert_array_equal(after, tokens(mirrored, 3))
    halves = [tokens(mirrored, 3, process_index=host, process_count=2) for host in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(halves), after)
    assert not np.array_equal(changed, (tokens(mirrored, 4) != tokens(plain, 4)).any(1))
    np.testing.assert_array_equal(tokens(mirrored, 0, "validation"), tokens(plain, 0, "validation"))
    first, second = (evaluation_batches(data, "train", 64)[0]["tokens"] for data in (plain, mirrored))
    np.testing.assert_array_equal(first, second)


def test_labels_pass_through_filled_batches():
    data = load_dataset(fields("blobs"))
    last = evaluation_batches(data, "test", 96)[2]
    assert last["label"].shape == (96,) and last["weights"][64:].sum() == 0
    np.testing.assert_array_equal(last["label"][:64], data.split("test").rows(range(192, 256))["label"])


def test_values_are_numbers_and_not_text():
    tokenizer = load_dataset(fields("blobs")).tokenizer
    assert tokenizer.encode("").size == 0 and tokenizer.eos_id is None and tokenizer.vocab_size == 16
    assert tokenizer.decode(np.array([3, 0, 15])) == "3 0 15"
    assert tokenizer.covered(np.arange(5)) == (5, 5)
    with refused(r"sample\.prompt: .* no text"):
        tokenizer.encode("7")
    with refused(r"data\.source: blobs is not text"):
        load_dataset(fields("blobs", vocab_size=8), tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("source", "change", "message"),
    [
        ("blobs", {"length": 32}, r"data\.length: 32 does not fit blobs; pass --config\.data\.length=64"),
        ("density2d", {"vocab_size": 1}, r"data\.vocab_size: density2d needs"),
        ("density2d", {"flip": True}, r"data\.flip: density2d holds no images"),
        ("blobs", {"vocab_size": 257}, r"data\.vocab_size: blobs has 2 to 256"),
        ("simple_molecules", {"vocab_size": 40}, r"data\.vocab_size: 40 does not fit simple_molecules; .*size=9"),
        ("simple_molecules", {"tokenizer": "bpe", "vocab_size": 30}, r"data\.vocab_size: 30 .*molecules .* own"),
        (
            "simple_molecules",
            {"length": 2},
            r"data\.length: .* no training molecule is left; .*length=10 holds all",
        ),
        ("blobs", {"packing": "padded"}, r"data\.packing: 'padded' does not fit blobs; .*packing=wrapped"),
        ("blobs", {"tokenizer": "bytes"}, r"data\.tokenizer: 'bytes' does not fit blobs; .*tokenizer=values"),
        ("blobs", {"source": "python_stdlib"}, r"data\.tokenizer: 'values' is for ready-made arrays"),
        ("blobs", {"validation_images": -1}, r"data\.validation_images: -1"),
    ],
)
@pytest.mark.filterwarnings("ignore:data.length")
def test_fields_that_do_not_fit_are_named(source, change, message):
    with refused(message):
        load_dataset(fields(source, **change))


@pytest.mark.parametrize(
    "source", ["mnist", "cifar10", "imagenet32", "qm9", "splice_sites", "genomes_small", "ten_species"]
)
def test_missing_files_are_named_with_their_origin(source):
    for path, place in (("", r"\(data\.path is empty\)"), ("/nowhere", "in '/nowhere'")):
        message = rf"data\.path: {source} expects .* {place}; pass --config\.data\.path=FOLDER\. To get it: https"
        with refused(message):
            load_dataset(fields(source, path)).split("train")


@pytest.mark.parametrize("source", ["imagenet32", "cifar10_pairs"])
def test_a_set_of_images_without_files_has_all_but_its_examples(source):
    values, colors = (4096, 2) if source.endswith("_pairs") else (256, 3)
    dataset = load_dataset(fields(source))
    assert (dataset.tokenizer.vocab_size, dataset.image, dataset.domain) == (values, (32, 32, colors), "image")
    assert not dataset.splits
