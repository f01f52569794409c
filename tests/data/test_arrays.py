"""Ready-made arrays: generated sources, labels, flips, and messages for bad input."""

import itertools

import jax
import numpy as np
import pytest

from diffusion.data import batches, evaluation_batches, load_dataset
from diffusion.data.arrays import mirror
from diffusion.data.synthetic import density_table
from diffusion.rng import draws
from diffusion.train.mesh import make_mesh, put_batch
from diffusion.train.step import gradients
from tests.data.array_files import everything, fields


def test_density_points_follow_the_table():
    table = density_table(32)
    assert table.shape == (32, 32) and table.dtype == np.float64 and (table > 0).all()
    assert table.sum() == pytest.approx(1, abs=1e-12)
    data = load_dataset(fields("density2d"))
    tokens = everything(data, "train")["tokens"]
    assert tokens.shape == (1_000_000, 2) and data.image is None
    counts = np.bincount(tokens[:, 0] * 32 + tokens[:, 1], minlength=1024).reshape(32, 32)
    chi_squared = np.sum((counts - 1e6 * table) ** 2 / (1e6 * table))
    assert abs(chi_squared - 1023) < 5 * np.sqrt(2 * 1023)
    # The axes are not exchangeable: a transposed table would not fit.
    assert np.sum((counts.T - 1e6 * table) ** 2 / (1e6 * table)) > 1e5
    np.testing.assert_array_equal(tokens[:100], everything(load_dataset(fields("density2d")), "train")["tokens"][:100])
    assert len(data.split("validation")) == len(data.split("test")) == 20_000
    assert not np.array_equal(everything(data, "validation")["tokens"], everything(data, "test")["tokens"])


def test_the_density_has_structure_at_several_scales():
    table = density_table(512)
    entropy = -np.sum(table * np.log(table))
    assert 0.5 < np.log(512**2) - entropy < 3
    # Averaging over ever larger cells loses information at every scale.
    coarse = [table.reshape(512 // k, k, 512 // k, k).sum((1, 3)) for k in (1, 4, 16, 64)]
    information = [np.sum(cells * np.log(cells * cells.size)) for cells in coarse]
    assert all(fine > rough + 0.05 for fine, rough in itertools.pairwise(information)) and information[-1] > 0.05


def test_the_label_of_a_blob_is_its_quadrant():
    rows = everything(load_dataset(fields("blobs")), "validation")
    bright = rows["tokens"].reshape(-1, 2, 4, 2, 4).sum((2, 4)).reshape(-1, 4)
    assert (bright.argmax(1) == rows["label"]).all() and set(rows["label"]) == {0, 1, 2, 3}
    assert rows["tokens"].min() == 0 and rows["tokens"].max() == 15


def test_flipping_mirrors_each_row_of_each_color():
    tokens = np.arange(2 * 12).reshape(2, 12)  # (c, h, w) = (2, 2, 3)
    mirrored = mirror(tokens, (2, 3, 2), np.array([True, False]))
    assert mirrored.tolist() == [[2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9], list(range(12, 24))]


def test_flips_are_a_function_of_seed_step_and_row_in_training_alone():
    plain, mirrored = load_dataset(fields("blobs")), load_dataset(fields("blobs", flip=True))
    before, after = batches(plain, "train", 64, seed=1), batches(mirrored, "train", 64, seed=1)
    all_flipped = mirror(before(3)["tokens"], plain.image, np.ones(64, bool))
    changed = (after(3)["tokens"] == all_flipped).all(1)
    np.testing.assert_array_equal(after(3)["tokens"][~changed], before(3)["tokens"][~changed])
    assert 16 < changed.sum() < 48
    np.testing.assert_array_equal(after(3)["tokens"], batches(mirrored, "train", 64, seed=1)(3)["tokens"])
    halves = [batches(mirrored, "train", 64, 1, process_index=host, process_count=2)(3)["tokens"] for host in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(halves), after(3)["tokens"])
    assert not np.array_equal(changed, (after(4)["tokens"] != before(4)["tokens"]).any(1))
    np.testing.assert_array_equal(
        batches(mirrored, "validation", 64, seed=1)(0)["tokens"], batches(plain, "validation", 64, seed=1)(0)["tokens"]
    )
    first, second = (evaluation_batches(data, "train", 64)[0]["tokens"] for data in (plain, mirrored))
    np.testing.assert_array_equal(first, second)


def test_labels_pass_through_filled_batches_meshes_and_micro_batches():
    data = load_dataset(fields("blobs"))
    last = evaluation_batches(data, "test", 96)[2]
    assert last["label"].shape == (96,) and last["weights"][64:].sum() == 0
    np.testing.assert_array_equal(last["label"][:64], data.split("test").rows(range(192, 256))["label"])
    batch = batches(data, "train", 8, seed=0)(0)
    placed = put_batch(batch, make_mesh())
    np.testing.assert_array_equal(placed["label"], batch["label"])

    def objective(params, batch, noise):
        total = params * (batch["label"] * batch["tokens"].sum(1)).sum()
        return total, {"loss": (total, jax.numpy.float32(len(batch["label"])))}

    noise = draws(jax.random.key(0), "train", 0, 8)
    whole, _ = gradients(objective, jax.numpy.float32(1), placed, noise, 1)
    parts, _ = gradients(objective, jax.numpy.float32(1), placed, noise, 4)
    assert float(whole) == float(parts) == np.sum(batch["label"] * batch["tokens"].sum(1)) / 8


def test_values_are_numbers_and_not_text():
    data = load_dataset(fields("blobs"))
    tokenizer = data.tokenizer
    assert tokenizer.encode("").size == 0 and tokenizer.eos_id is None and tokenizer.vocab_size == 16
    assert tokenizer.decode(np.array([3, 0, 15])) == "3 0 15"
    with pytest.raises(ValueError, match=r"sample\.prompt: .* no text"):
        tokenizer.encode("7")
    assert tokenizer.covered(np.arange(5)) == (5, 5)


@pytest.mark.parametrize(
    ("source", "change", "message"),
    [
        ("blobs", {"length": 32}, r"data\.length: 32 does not fit blobs; pass --config\.data\.length=64"),
        ("density2d", {"length": 3}, r"data\.length: 3 does not fit density2d; .*length=2"),
        ("density2d", {"vocab_size": 1}, r"data\.vocab_size: density2d needs"),
        ("density2d", {"flip": True}, r"data\.flip: density2d holds no images"),
        ("blobs", {"vocab_size": 257}, r"data\.vocab_size: blobs has 2 to 256"),
        ("blobs", {"packing": "padded"}, r"data\.packing: 'padded' does not fit blobs; .*packing=wrapped"),
        ("blobs", {"tokenizer": "bytes"}, r"data\.tokenizer: 'bytes' does not fit blobs; .*tokenizer=values"),
        ("mnist", {}, r"data\.path: mnist expects .* \(data\.path is empty\)"),
        ("cifar10", {"path": "/nowhere"}, r"data\.path: cifar10 expects .* in '/nowhere'"),
        ("imagenet32", {"path": "/nowhere"}, r"data\.path: imagenet32 expects .* in '/nowhere'"),
        ("python_stdlib", {}, r"data\.tokenizer: 'values' is for ready-made arrays"),
        ("blobs", {"validation_images": -1}, r"data\.validation_images: -1"),
    ],
)
def test_fields_that_do_not_fit_are_named(source, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(fields(source, **change))
    assert "\n" not in str(caught.value)


def test_another_tokenizer_cannot_read_values():
    other = load_dataset(fields("blobs", vocab_size=8)).tokenizer
    with pytest.raises(ValueError, match=r"data\.source: blobs is not text"):
        load_dataset(fields("blobs"), tokenizer=other)
