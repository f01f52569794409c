"""Image files in every published version: their pixels and labels, and messages for damaged ones."""

import gzip
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from diffusion.data import load_dataset, loader
from diffusion.data.arrays import LABELS, SHAPES, as_pixels, mirror
from diffusion.data.images import pack_pixel_pairs, unpack_pixel_pairs
from tests.data.array_files import everything, fields

RNG = np.random.default_rng(0)


def random_images(count, pixels):
    return RNG.integers(0, 256, (count, pixels), dtype=np.uint8), RNG.integers(0, 10, count)


def idx(array):
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist_folder(tmp_path):
    content = {}
    for name, count in (("train", 6), ("t10k", 3)):
        images, labels = random_images(count, 784)
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images.reshape(-1, 28, 28))))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
        content[name] = (images, labels)
    return tmp_path, content


def python_version(images, labels, protocol=2):
    """CIFAR-10's format: a dictionary with byte keys, in protocol 2 by default, as written by Python 2."""
    return pickle.dumps({b"batch_label": b"x", b"labels": labels.tolist(), b"data": images}, protocol=protocol)


def binary_version(images, labels):
    return np.concatenate([labels[:, None].astype(np.uint8), images], axis=1).tobytes()


def test_mnist_gives_its_pixels_with_labels_and_holds_out_the_last_images(mnist_folder):
    folder, content = mnist_folder
    data = load_dataset(fields("mnist", folder))
    images, labels = content["train"]
    parts = {"train": (images[:4], labels[:4]), "validation": (images[4:], labels[4:]), "test": content["t10k"]}
    for split, (pixels, targets) in parts.items():
        rows = everything(data, split)
        np.testing.assert_array_equal(rows["tokens"], pixels)
        np.testing.assert_array_equal(rows["label"], targets)
        assert rows["tokens"].dtype == rows["label"].dtype == np.int32 and (rows["weights"] == 1).all()
        # Bits per byte are bits per dimension.
        assert data.statistics[split].bytes == data.statistics[split].tokens == pixels.size
    assert (data.image, data.labels) == (SHAPES["mnist"], LABELS["mnist"]) == ((28, 28, 1), 10)
    whole = load_dataset(fields("mnist", folder, validation_images=0))
    np.testing.assert_array_equal(everything(whole, "train")["tokens"], images)
    np.testing.assert_array_equal(everything(whole, "validation")["tokens"], content["t10k"][0])
    assert whole.fingerprint != data.fingerprint


def test_the_fingerprint_follows_the_content(mnist_folder):
    folder, content = mnist_folder
    before = load_dataset(fields("mnist", folder)).fingerprint
    assert load_dataset(fields("mnist", folder)).fingerprint == before
    images, labels = content["t10k"]
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


def test_cifar10_is_equal_in_all_versions_from_folder_or_archive(tmp_path):
    train, test = [random_images(3, 3072) for _ in range(2)], random_images(2, 3072)
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
        turned = unpack_pixel_pairs(mirror(rows["tokens"], pairs.image, every))
        np.testing.assert_array_equal(turned, mirror(plain["tokens"], data.image, every))


def test_super_tokens_are_the_halves_of_a_pixels_24_bits():
    pixel = np.array([[0xAB, 0x01, 0xCD, 0x02, 0xEF, 0x03]])  # two pixels, ABCDEF and 010203, plane by plane
    assert pack_pixel_pairs(pixel).tolist() == [[0xABC, 0x010, 0xDEF, 0x203]]


def test_a_pickle_that_could_run_code_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": Attack(), "labels": []}))
    (tmp_path / "test_batch").write_bytes(python_version(*random_images(2, 3072)))
    with pytest.raises(ValueError, match=r"data\.path: data_batch_1 is damaged .* names posix\.mkdir") as caught:
        load_dataset(fields("cifar10", tmp_path))
    assert "\n" not in str(caught.value) and not (tmp_path / "attacked").exists()


def test_imagenet32_is_packed_once_in_the_order_of_its_batches(tmp_path, monkeypatch):
    parts = [random_images(2, 3072) for _ in range(3)]
    held_out = random_images(3, 3072)
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
        (images, gzip.compress(b"PNG"), "is not an idx file of bytes"),
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
    images, labels = random_images(3, 3072)
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
        with pytest.raises(ValueError, match=r"data\.path: data_batch_1 .*download it again") as caught:
            load_dataset(fields("cifar10", tmp_path))
        assert "\n" not in str(caught.value)
    batch.unlink()
    (tmp_path / "data_batch_1.bin").write_bytes(b"\0" * 5000)
    with pytest.raises(ValueError, match=r"data\.path: data_batch_1\.bin has 5000 bytes, not a multiple of 3073"):
        load_dataset(fields("cifar10", tmp_path))
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(tar({"data_batch_1": python_version(images, labels)})[:2000])
    with pytest.raises(ValueError, match=r"data\.path: a compressed file in .* is damaged"):
        load_dataset(fields("cifar10", broken))
