"""Image files: their pixels and labels, and messages for damaged ones."""

import gzip
import io
import os
from pathlib import Path

import numpy as np
import pytest

from diffusion.data import load_dataset
from diffusion.data.arrays import LABELS, SHAPES, as_pixels, mirror
from diffusion.data.images import pack_pixel_pairs, unpack_pixel_pairs
from tests.data.array_files import everything, fields

RNG = np.random.default_rng(0)


def random_images(count, pixels):
    return RNG.integers(0, 256, (count, pixels), dtype=np.uint8), RNG.integers(0, 10, count)


def idx(array):
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def as_parquet(file, images, labels, shape, column="image"):
    """Writes channel-major images as the hub stores them: PNG files in a column, which its metadata declare."""
    import datasets
    from PIL import Image

    height, width, colors = shape
    content = []
    for row in images.reshape(-1, colors, height, width).transpose(0, 2, 3, 1):
        stream = io.BytesIO()
        Image.fromarray(row.squeeze()).save(stream, format="png")
        content.append({"bytes": stream.getvalue(), "path": None})
    features = datasets.Features({column: datasets.Image(), "label": datasets.Value("int64")})
    file.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict({column: content, "label": labels.tolist()}, features).to_parquet(file)


@pytest.fixture
def mnist_folder(tmp_path):
    content = {}
    for name, count in (("train", 6), ("t10k", 3)):
        images, labels = random_images(count, 784)
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images.reshape(-1, 28, 28))))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
        content[name] = (images, labels)
    return tmp_path, content


def test_mnist_gives_its_pixels_with_labels_and_holds_out_the_last_images(mnist_folder, tmp_path):
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
    as_parquet(tmp_path / "hub" / "train-00000-of-00001.parquet", images, labels, (28, 28, 1))
    as_parquet(tmp_path / "hub" / "test-00000-of-00001.parquet", *content["t10k"], (28, 28, 1))
    assert load_dataset(fields("mnist", tmp_path / "hub")).fingerprint == data.fingerprint


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
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sizes == {"train": 55_000, "validation": 5_000, "test": 10_000}
    assert data.split("train").rows(range(10))["label"].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.split("test").rows(range(5))["label"].tolist() == [7, 2, 1, 0, 4]
    assert everything(data, "test")["tokens"].mean() == pytest.approx(0.1325 * 255, rel=1e-3)


def test_cifar10_is_equal_in_its_binary_version_and_parquet(tmp_path):
    train, test = [random_images(3, 3072) for _ in range(2)], random_images(2, 3072)
    folder = tmp_path / "binary" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, (images, labels) in {"data_batch_1": train[0], "data_batch_2": train[1], "test_batch": test}.items():
        records = np.concatenate([labels[:, None].astype(np.uint8), images], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    for number, part in enumerate(train):
        as_parquet(tmp_path / "hub" / "data" / f"train-0000{number}-of-00002.parquet", *part, (32, 32, 3), "img")
    as_parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", *test, (32, 32, 3), "img")
    data, other = (load_dataset(fields("cifar10", tmp_path / version)) for version in ("binary", "hub"))
    assert data.fingerprint == other.fingerprint
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


def test_imagenet32_is_packed_once_in_the_order_of_its_batches(tmp_path, monkeypatch):
    parts, held_out = [random_images(2, 3072) for _ in range(3)], random_images(3, 3072)
    (tmp_path / "npz" / "train").mkdir(parents=True)
    for number, (images, labels) in zip((1, 2, 10), parts, strict=True):
        np.savez(tmp_path / "npz" / "train" / f"train_data_batch_{number}.npz", data=images, labels=labels + 1)
    np.savez(tmp_path / "npz" / "val_data.npz", data=held_out[0], labels=held_out[1])
    settings = fields("imagenet32", tmp_path / "npz", cache_dir=str(tmp_path / "cache"))
    for memory in (2**28, 0):
        monkeypatch.setattr("diffusion.data.dataset.MEMORY_LIMIT", memory)
        data = load_dataset(settings)
        np.testing.assert_array_equal(everything(data, "train")["tokens"], np.concatenate([x for x, _ in parts]))
        for split in ("validation", "test"):
            np.testing.assert_array_equal(everything(data, split)["tokens"], held_out[0])
            assert data.statistics[split].bytes == held_out[0].size
        assert "label" not in everything(data, "train") and data.labels == 0 and data.image == SHAPES["imagenet32"]
    assert data.split("train").source[0]["tokens"].dtype == np.uint8
    assert len(list((tmp_path / "cache" / "packed").iterdir())) == 1
    file = tmp_path / "npz" / "val_data.npz"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"data\.path: .*val_data\.npz is damaged"):
        load_dataset(settings)


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
        (images, gzip.compress(b"PNG"), "is not an idx file of bytes"),
        (labels, b"\0\0\x08", "is not an idx file of bytes"),
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


def test_images_that_do_not_fit_are_named(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(b"\0" * 5000)
    (tmp_path / "test_batch.bin").write_bytes(b"\0" * 3073)
    with pytest.raises(ValueError, match=r"data\.path: data_batch_1\.bin has 5000 bytes, not a multiple of 3073"):
        load_dataset(fields("cifar10", tmp_path))
    as_parquet(tmp_path / "train.parquet", *random_images(2, 784), (28, 28, 1))
    with pytest.raises(ValueError, match=r"data\.path: .* holds train; pass a folder with train and test"):
        load_dataset(fields("cifar10", tmp_path))
    as_parquet(tmp_path / "test.parquet", *random_images(2, 784), (28, 28, 1))
    with pytest.raises(ValueError, match=r"data\.path: row 0 of .*test\.parquet holds uint8 \(28, 28\), not an image"):
        load_dataset(fields("cifar10", tmp_path))
