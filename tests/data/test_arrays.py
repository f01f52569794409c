"""Ready-made arrays: image files in every version, generated sources, labels, flips, and messages for bad input."""

import gzip
import io
import itertools
import os
import pickle
import tarfile
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from diffusion.data import batches, evaluation_batches, load_dataset, loader
from diffusion.data.arrays import LABELS, SHAPES, as_pixels, flipped
from diffusion.data.images import pixel_pairs, pixels_of_pairs
from diffusion.data.synthetic import density_table
from diffusion.rng import draws
from diffusion.train.mesh import make_mesh, put_batch
from diffusion.train.step import gradients

RNG = np.random.default_rng(0)


def fields(source, path="", **changes):
    lengths = {"mnist": (784, 256), "cifar10": (3072, 256), "imagenet32": (3072, 256), "density2d": (2, 32)}
    lengths |= {"cifar10_pairs": (2048, 4096)}
    length, vocab_size = lengths.get(source, (64, 16))
    settings = dict(source=source, path=str(path), tokenizer="values", length=length, vocab_size=vocab_size)
    return SimpleNamespace(**(settings | {"validation_images": 2} | changes))


def pictures(count, pixels):
    return RNG.integers(0, 256, (count, pixels), dtype=np.uint8), RNG.integers(0, 10, count)


def idx(array):
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist_folder(tmp_path):
    made = {}
    for name, count in (("train", 6), ("t10k", 3)):
        images, labels = pictures(count, 784)
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images.reshape(-1, 28, 28))))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
        made[name] = (images, labels)
    return tmp_path, made


def python_version(images, labels, protocol=2):
    """As CIFAR-10 is distributed: a dictionary with byte keys; protocol 2 is what Python 2 wrote."""
    return pickle.dumps({b"batch_label": b"x", b"labels": labels.tolist(), b"data": images}, protocol=protocol)


def binary_version(images, labels):
    return np.concatenate([labels[:, None].astype(np.uint8), images], axis=1).tobytes()


def everything(dataset, split):
    return dataset.split(split).rows(range(len(dataset.split(split))))


def test_mnist_gives_its_pixels_with_labels_and_holds_out_the_last_images(mnist_folder):
    folder, made = mnist_folder
    data = load_dataset(fields("mnist", folder))
    images, labels = made["train"]
    parts = {"train": (images[:4], labels[:4]), "validation": (images[4:], labels[4:]), "test": made["t10k"]}
    for split, (pixels, targets) in parts.items():
        rows = everything(data, split)
        np.testing.assert_array_equal(rows["tokens"], pixels)
        np.testing.assert_array_equal(rows["label"], targets)
        assert rows["tokens"].dtype == rows["label"].dtype == np.int32 and (rows["weights"] == 1).all()
        # Bits per byte are bits per dimension.
        assert data.statistics[split].bytes == data.statistics[split].tokens == pixels.size
    assert (data.image, data.labels) == (SHAPES["mnist"], LABELS["mnist"]) == ((28, 28, 1), 10)
    assert data.model_vocab_size == 257
    whole = load_dataset(fields("mnist", folder, validation_images=0))
    np.testing.assert_array_equal(everything(whole, "train")["tokens"], images)
    np.testing.assert_array_equal(everything(whole, "validation")["tokens"], made["t10k"][0])
    assert whole.fingerprint != data.fingerprint


def test_the_fingerprint_follows_the_content(mnist_folder):
    folder, made = mnist_folder
    before = load_dataset(fields("mnist", folder)).fingerprint
    assert load_dataset(fields("mnist", folder)).fingerprint == before
    images, labels = made["t10k"]
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx((labels + 1) % 10))
    other = load_dataset(fields("mnist", folder)).fingerprint
    images[0, 0] ^= 1
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images.reshape(-1, 28, 28))))
    assert len({before, other, load_dataset(fields("mnist", folder)).fingerprint}) == 3


def test_the_real_mnist_has_its_known_sizes_and_first_labels():
    root = os.environ.get("DIFFUSION_TEST_DATA")
    if not root or not (Path(root) / "mnist").is_dir():
        pytest.skip("set DIFFUSION_TEST_DATA to a folder that holds mnist/ to check the real data")
    data = load_dataset(fields("mnist", Path(root) / "mnist", validation_images=5000))
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 55_000,
        "validation": 5_000,
        "test": 10_000,
    }
    assert data.split("train").rows(range(10))["label"].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.split("test").rows(range(5))["label"].tolist() == [7, 2, 1, 0, 4]
    assert everything(data, "test")["tokens"].mean() == pytest.approx(0.1325 * 255, rel=1e-3)


def tar(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"cifar-10/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def test_cifar10_reads_the_same_from_either_version_in_folder_or_archive(tmp_path):
    train, test = [pictures(3, 3072) for _ in range(2)], pictures(2, 3072)
    versions = {
        "python2": ("", lambda images, labels: python_version(images, labels)),
        "python3": ("", lambda images, labels: python_version(images, labels, protocol=5)),
        "binary": (".bin", binary_version),
    }
    prints = set()
    for name, (suffix, write) in versions.items():
        files = {f"data_batch_{number + 1}{suffix}": write(*batch) for number, batch in enumerate(train)}
        files |= {f"test_batch{suffix}": write(*test), "batches.meta": b"?", "readme.html": b"?"}
        folder = tmp_path / name / "cifar-10-batches"
        folder.mkdir(parents=True)
        for file, data in files.items():
            (folder / file).write_bytes(data)
        (tmp_path / f"{name}.tar.gz").write_bytes(tar(files))
        for place in (folder.parent, folder, tmp_path / f"{name}.tar.gz"):
            data = load_dataset(fields("cifar10", place))
            prints.add(data.fingerprint)
    assert len(prints) == 1
    np.testing.assert_array_equal(everything(data, "train")["tokens"], np.concatenate([x for x, _ in train])[:4])
    np.testing.assert_array_equal(everything(data, "test")["label"], test[1])
    assert (data.image, data.labels) == (SHAPES["cifar10"], LABELS["cifar10"]) and len(data.split("validation")) == 2
    pairs = load_dataset(fields("cifar10_pairs", tmp_path / "binary", flip=True))
    assert (pairs.image, pairs.labels) == (SHAPES["cifar10_pairs"], LABELS["cifar10_pairs"])
    assert pairs.tokenizer.vocab_size == 4096 and pairs.fingerprint != data.fingerprint
    for split in ("train", "test"):
        rows, plain = everything(pairs, split), everything(data, split)
        np.testing.assert_array_equal(rows["label"], plain["label"])
        pixels, shape = as_pixels("cifar10_pairs", rows["tokens"])
        np.testing.assert_array_equal(pixels, plain["tokens"])
        assert shape == (32, 32, 3)
        every = np.ones(len(rows["tokens"]), bool)
        turned = pixels_of_pairs(flipped(rows["tokens"], pairs.image, every))
        np.testing.assert_array_equal(turned, flipped(plain["tokens"], data.image, every))


def test_super_tokens_are_the_halves_of_a_pixels_24_bits():
    pixel = np.array([[0xAB, 0x01, 0xCD, 0x02, 0xEF, 0x03]])  # two pixels, ABCDEF and 010203, plane by plane
    assert pixel_pairs(pixel).tolist() == [[0xABC, 0x010, 0xDEF, 0x203]]


def test_a_pickle_that_could_run_code_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": Attack(), "labels": []}))
    (tmp_path / "test_batch").write_bytes(python_version(*pictures(2, 3072)))
    with pytest.raises(ValueError, match=r"data\.path: data_batch_1 is damaged .* names posix\.mkdir") as caught:
        load_dataset(fields("cifar10", tmp_path))
    assert "\n" not in str(caught.value) and not (tmp_path / "attacked").exists()


def test_imagenet32_is_packed_once_in_the_order_of_its_batches(tmp_path, monkeypatch):
    parts = [pictures(2, 3072) for _ in range(3)]
    held_out = pictures(3, 3072)
    npz = tmp_path / "npz"
    (npz / "train").mkdir(parents=True)
    old = tmp_path / "pickles"
    old.mkdir()
    for number, (images, labels) in zip((1, 2, 10), parts, strict=True):
        np.savez(npz / "train" / f"train_data_batch_{number}.npz", data=images, labels=labels + 1)
        record = {"data": images, "labels": (labels + 1).tolist(), "mean": images.mean(0)}
        (old / f"train_data_batch_{number}").write_bytes(pickle.dumps(record))
    np.savez(npz / "val_data.npz", data=held_out[0], labels=held_out[1])
    (old / "val_data").write_bytes(pickle.dumps({"data": held_out[0], "labels": held_out[1].tolist()}))
    for memory in (loader.MEMORY_LIMIT, 0):
        monkeypatch.setattr(loader, "MEMORY_LIMIT", memory)
        for place in (npz, old):
            data = load_dataset(fields("imagenet32", place, cache_dir=str(tmp_path / "cache")))
            np.testing.assert_array_equal(everything(data, "train")["tokens"], np.concatenate([x for x, _ in parts]))
            for split in ("validation", "test"):
                np.testing.assert_array_equal(everything(data, split)["tokens"], held_out[0])
                assert data.statistics[split].bytes == held_out[0].size
            assert "label" not in everything(data, "train") and data.labels == 0 and data.image == SHAPES["imagenet32"]
    assert data.split("train").source[0]["tokens"].dtype == np.uint8
    assert len(list((tmp_path / "cache" / "packed").iterdir())) == 2
    (npz / "val_data.npz").write_bytes((npz / "val_data.npz").read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"data\.path: .*val_data\.npz is damaged"):
        load_dataset(fields("imagenet32", npz, cache_dir=str(tmp_path / "cache")))


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


def test_the_label_of_a_blob_is_the_quarter_that_it_lies_in():
    rows = everything(load_dataset(fields("blobs")), "validation")
    bright = rows["tokens"].reshape(-1, 2, 4, 2, 4).sum((2, 4)).reshape(-1, 4)
    assert (bright.argmax(1) == rows["label"]).all() and set(rows["label"]) == {0, 1, 2, 3}
    assert rows["tokens"].min() == 0 and rows["tokens"].max() == 15


def test_flipping_mirrors_each_row_of_each_color():
    tokens = np.arange(2 * 12).reshape(2, 12)  # (c, h, w) = (2, 2, 3)
    mirrored = flipped(tokens, (2, 3, 2), np.array([True, False]))
    assert mirrored.tolist() == [[2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9], list(range(12, 24))]


def test_flips_are_a_function_of_seed_step_and_row_and_touch_training_alone():
    plain, mirrored = load_dataset(fields("blobs")), load_dataset(fields("blobs", flip=True))
    before, after = batches(plain, "train", 64, seed=1), batches(mirrored, "train", 64, seed=1)
    all_flipped = flipped(before(3)["tokens"], plain.image, np.ones(64, bool))
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


def test_labels_go_through_filled_batches_meshes_and_micro_batches():
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
    whole, _ = gradients(objective, jax.numpy.ones(()), placed, noise, 1)
    parts, _ = gradients(objective, jax.numpy.ones(()), placed, noise, 4)
    assert float(whole) == float(parts) == np.sum(batch["label"] * batch["tokens"].sum(1)) / 8


def test_values_are_numbers_and_no_text():
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
    with pytest.raises(ValueError, match=r"data\.source: blobs is no text"):
        load_dataset(fields("blobs"), tokenizer=other)


def test_damaged_mnist_files_are_named(mnist_folder):
    folder, _ = mnist_folder
    for change, message in (
        ({"vocab_size": 255}, r"data\.vocab_size: 255 does not fit mnist"),
        ({"validation_images": 6}, r"data\.validation_images: 6 leaves none of 6"),
    ):
        with pytest.raises(ValueError, match=message):
            load_dataset(fields("mnist", folder, **change))
    images, labels = folder / "train-images-idx3-ubyte.gz", folder / "t10k-labels-idx1-ubyte"
    whole, small = images.read_bytes(), labels.read_bytes()
    for file, damage, message in (
        (images, whole[: len(whole) // 2], "compressed file in .* is damaged"),
        (images, whole[:40] + b"\0" * 40 + whole[80:], "compressed file in .* is damaged"),
        (images, gzip.compress(b"PNG"), "is no idx file of bytes"),
        (labels, small[:-1], "holds 2 of 3 bytes"),
        (labels, idx(np.zeros(4)), r"have shapes \(3, 28, 28\) and \(4,\)"),
        (labels, idx(np.array([1, 2, 11])), "holds a label 11"),
    ):
        original = file.read_bytes()
        file.write_bytes(damage)
        with pytest.raises(ValueError, match=rf"data\.path: .*{message}") as caught:
            load_dataset(fields("mnist", folder))
        assert "\n" not in str(caught.value)
        file.write_bytes(original)


def test_damaged_cifar_files_are_named(tmp_path):
    images, labels = pictures(3, 3072)
    (tmp_path / "test_batch").write_bytes(python_version(images, labels))
    batch = tmp_path / "data_batch_1"
    for damage in (
        python_version(images, labels)[:-500],
        python_version(images[:, :100], labels),
        python_version(images, labels[:1]),
        pickle.dumps([1, 2]),
        b"",
    ):
        batch.write_bytes(damage)
        with pytest.raises(ValueError, match=r"data\.path: data_batch_1 .*get it anew") as caught:
            load_dataset(fields("cifar10", tmp_path))
        assert "\n" not in str(caught.value)
    batch.unlink()
    (tmp_path / "data_batch_1.bin").write_bytes(b"\0" * 5000)
    with pytest.raises(ValueError, match=r"data\.path: data_batch_1\.bin has 5000 bytes, no multiple of 3073"):
        load_dataset(fields("cifar10", tmp_path))
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(tar({"data_batch_1": python_version(images, labels)})[:2000])
    with pytest.raises(ValueError, match=r"data\.path: a compressed file in .* is damaged"):
        load_dataset(fields("cifar10", broken))
