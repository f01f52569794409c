"""Image files: their pixels and labels, and messages for damaged ones."""

import gzip
import io

import numpy as np
import pytest

from diffusion.data import load_dataset
from diffusion.data.arrays import LABELS, SHAPES, as_pixels, mirror
from diffusion.data.images import pack_pixel_pairs, unpack_pixel_pairs
from tests.checks import refused
from tests.data.files import fields, idx, rows, write

RNG = np.random.default_rng(0)


def random_images(count, pixels):
    return RNG.integers(0, 256, (count, pixels), dtype=np.uint8), RNG.integers(0, 10, count)


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
def mnist(tmp_path):
    """A folder with 6 training and 3 test images, and their pixels and labels."""
    content = {"train": random_images(6, 784), "t10k": random_images(3, 784)}
    for name, (images, labels) in content.items():
        pixels = gzip.compress(idx(images.reshape(-1, 28, 28)))
        write(tmp_path, {f"{name}-images-idx3-ubyte.gz": pixels, f"{name}-labels-idx1-ubyte": idx(labels)})
    return tmp_path, content


def test_mnist_gives_its_pixels_with_labels_and_holds_out_the_last_images(mnist, tmp_path):
    folder, content = mnist
    data = load_dataset(fields("mnist", folder))
    images, labels = content["train"]
    parts = {"train": (images[:4], labels[:4]), "validation": (images[4:], labels[4:]), "test": content["t10k"]}
    for split, (pixels, targets) in parts.items():
        examples = rows(data, split)
        np.testing.assert_array_equal(examples["tokens"], pixels)
        np.testing.assert_array_equal(examples["label"], targets)
        assert examples["tokens"].dtype == examples["label"].dtype == np.int32 and (examples["weights"] == 1).all()
        # Bits per byte are bits per dimension.
        assert data.statistics[split].bytes == data.statistics[split].tokens == pixels.size
    assert (data.image, data.labels) == (SHAPES["mnist"], LABELS["mnist"]) == ((28, 28, 1), 10)
    whole = load_dataset(fields("mnist", folder, validation_images=0))
    np.testing.assert_array_equal(rows(whole, "train")["tokens"], images)
    np.testing.assert_array_equal(rows(whole, "validation")["tokens"], content["t10k"][0])
    assert whole.fingerprint != data.fingerprint
    as_parquet(tmp_path / "hub" / "train-00000-of-00001.parquet", images, labels, (28, 28, 1))
    as_parquet(tmp_path / "hub" / "test-00000-of-00001.parquet", *content["t10k"], (28, 28, 1))
    assert load_dataset(fields("mnist", tmp_path / "hub")).fingerprint == data.fingerprint


def test_cifar10_is_equal_in_its_binary_version_and_parquet(tmp_path):
    train, test = [random_images(3, 3072) for _ in range(2)], random_images(2, 3072)
    for name, (images, labels) in {"data_batch_1": train[0], "data_batch_2": train[1], "test_batch": test}.items():
        records = np.concatenate([labels[:, None].astype(np.uint8), images], axis=1)
        write(tmp_path / "binary" / "cifar-10-batches-bin", {f"{name}.bin": records.tobytes()})
    for number, part in enumerate(train):
        as_parquet(tmp_path / "hub" / "data" / f"train-0000{number}-of-00002.parquet", *part, (32, 32, 3), "img")
    as_parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", *test, (32, 32, 3), "img")
    data, other = (load_dataset(fields("cifar10", tmp_path / version)) for version in ("binary", "hub"))
    assert data.fingerprint == other.fingerprint
    np.testing.assert_array_equal(rows(data, "train")["tokens"], np.concatenate([x for x, _ in train])[:4])
    np.testing.assert_array_equal(rows(data, "test")["label"], test[1])
    assert (data.image, data.labels) == (SHAPES["cifar10"], LABELS["cifar10"]) and len(data.split("validation")) == 2
    pairs = load_dataset(fields("cifar10_pairs", tmp_path / "binary", flip=True))
    assert (pairs.image, pairs.labels) == (SHAPES["cifar10_pairs"], LABELS["cifar10_pairs"])
    assert pairs.tokenizer.vocab_size == 4096 and pairs.fingerprint != data.fingerprint
    for split in ("train", "test"):
        packed, plain = rows(pairs, split), rows(data, split)
        np.testing.assert_array_equal(packed["label"], plain["label"])
        pixels, shape = as_pixels(pairs.image, packed["tokens"])
        np.testing.assert_array_equal(pixels, plain["tokens"])
        assert shape == (32, 32, 3)
        every = np.ones(len(pixels), bool)
        turned = unpack_pixel_pairs(mirror(packed["tokens"], pairs.image, every))
        np.testing.assert_array_equal(turned, mirror(plain["tokens"], data.image, every))


def test_images_that_do_not_fit_are_named(tmp_path):
    for name, message in (
        ("train", r"data\.path: .* holds train; pass a folder with train and test"),
        ("test", r"data\.path: row 0 of .*test\.parquet holds uint8 \(28, 28\), not an image"),
    ):
        as_parquet(tmp_path / f"{name}.parquet", *random_images(2, 784), (28, 28, 1))
        with refused(message):
            load_dataset(fields("cifar10", tmp_path))
    with refused(r"data\.validation_images: 2 leaves none of 2"):
        load_dataset(fields("mnist", tmp_path))


def test_super_tokens_are_the_halves_of_a_pixels_24_bits():
    pixel = np.array([[0xAB, 0x01, 0xCD, 0x02, 0xEF, 0x03]])  # two pixels, ABCDEF and 010203, plane by plane
    assert pack_pixel_pairs(pixel).tolist() == [[0xABC, 0x010, 0xDEF, 0x203]]


def test_imagenet32_is_packed_once_in_the_order_of_its_batches(tmp_path, monkeypatch):
    parts, held_out = [random_images(2, 3072)[0] for _ in range(3)], random_images(3, 3072)[0]
    (tmp_path / "npz" / "train").mkdir(parents=True)
    for number, images in zip((1, 2, 10), parts, strict=True):
        np.savez(tmp_path / "npz" / "train" / f"train_data_batch_{number}.npz", data=images)
    file = tmp_path / "npz" / "val_data.npz"
    np.savez(file, data=held_out)
    settings = fields("imagenet32", tmp_path / "npz", cache_dir=str(tmp_path / "cache"))
    for memory in (2**28, 0):
        monkeypatch.setattr("diffusion.data.dataset.MEMORY_LIMIT", memory)
        data = load_dataset(settings)
        np.testing.assert_array_equal(rows(data, "train")["tokens"], np.concatenate(parts))
        for split in ("validation", "test"):
            np.testing.assert_array_equal(rows(data, split)["tokens"], held_out)
            assert data.statistics[split].bytes == held_out.size
        assert "label" not in rows(data, "train") and data.labels == 0 and data.image == SHAPES["imagenet32"]
    assert data.split("train").source[0]["tokens"].dtype == np.uint8
    assert len(list((tmp_path / "cache" / "packed").iterdir())) == 1
    file.write_bytes(file.read_bytes()[:2000])
    with refused(r"data\.path: .*val_data\.npz is damaged"):
        load_dataset(settings)
