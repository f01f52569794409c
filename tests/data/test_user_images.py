"""A user's images: formats, colors and sizes, classes and splits of folders, and messages for what cannot be read."""

import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs import prime_images, scmdm_images
from diffusion.data import image_files, load_dataset
from diffusion.data.arrays import image_shape, label_count
from experiments.contents import content_hash, reread
from tests.checks import refused
from tests.data.files import fields, rows, sizes, write

RNG = np.random.default_rng(0)
WHITE = 255


def settings(folder, **changes):
    return fields("image_files", folder, cache_dir=str(folder.parent / "cache"), **changes)


def draw(folder, *names, size=(4, 4), **options):
    """Write random images, all different, in RGB."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (*size, 3), np.uint8)).save(folder / name, **options)
    return folder


def one(image, tmp_path, name="a.png", resize="cover", levels=256, length=16, **options: Any):
    """The pixels that the image gives, once it is written to a file."""
    image.save(tmp_path / name, **options)
    return image_files.pixels(tmp_path / name, image_shape(fields("image_files", length=length)), levels, resize)


PATTERN = RNG.integers(0, 256, (4, 4), np.uint8)
COLORS = RNG.integers(0, 256, (4, 4, 3), np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"])
def test_every_format_gives_its_pixels(suffix, tmp_path):
    """Also the first frame of an animation."""
    exact = suffix.lower() in (".png", ".bmp", ".gif", ".webp")
    frames = [Image.new("L", (4, 4))] if suffix in (".gif", ".webp") else []
    options: dict[str, Any] = dict(save_all=True, append_images=frames) if frames else {}
    options |= {"lossless": True} if suffix == ".webp" else {}
    found = one(Image.fromarray(PATTERN), tmp_path, f"a{suffix}", **options)
    np.testing.assert_allclose(found.astype(int), PATTERN.reshape(-1), atol=1 if exact else 60)


def opaque(values, alpha):
    return np.round(values * (alpha / 255) + WHITE * (1 - alpha / 255)).astype(int)


ALPHA = RNG.integers(0, 256, (4, 4), np.uint8)
PALETTE = Image.fromarray((PATTERN > 99).astype(np.uint8), "P")
PALETTE.putpalette([10, 10, 10, 200, 200, 200])
GRAY: dict[str, Any] = {
    "16 bits": (Image.fromarray(PATTERN.astype(np.uint16) * 257), {}, PATTERN),
    "1 bit": (Image.fromarray(PATTERN > 99), {}, 255 * (PATTERN > 99)),
    "palette": (PALETTE, {}, np.where(PATTERN > 99, 200, 10)),
    "palette with a transparent color": (PALETTE, {"transparency": 0}, np.where(PATTERN > 99, 200, WHITE)),
    "alpha": (Image.merge("LA", [Image.fromarray(part) for part in (PATTERN, ALPHA)]), {}, opaque(PATTERN, ALPHA)),
    "turned": (Image.fromarray(PATTERN), {"exif": Image.Exif()}, np.rot90(PATTERN, -1)),
}
GRAY["turned"][1]["exif"][0x0112] = 6  # the top of the image is at the right


@pytest.mark.parametrize("kind", GRAY)
def test_kinds_of_gray(kind, tmp_path):
    image, options, expected = GRAY[kind]
    np.testing.assert_allclose(one(image, tmp_path, **options).astype(int), expected.reshape(-1), atol=1)


def test_colors_are_channel_major_and_levels_are_rounded(tmp_path):
    image = Image.fromarray(COLORS)
    np.testing.assert_array_equal(one(image, tmp_path, length=48), COLORS.transpose(2, 0, 1).reshape(-1))
    gray = np.round(COLORS @ [0.299, 0.587, 0.114]).reshape(-1)
    np.testing.assert_allclose(one(image, tmp_path), gray, atol=1)
    np.testing.assert_array_equal(one(Image.fromarray(PATTERN), tmp_path, length=48), np.tile(PATTERN.reshape(-1), 3))
    few = one(Image.fromarray(PATTERN), tmp_path, levels=4)
    np.testing.assert_array_equal(few, np.round(PATTERN.reshape(-1) / 85))
    printed = one(Image.fromarray(COLORS).resize((8, 8), 0).convert("CMYK"), tmp_path, "a.jpg", length=48, quality=100)
    assert np.corrcoef(printed, COLORS.transpose(2, 0, 1).reshape(-1))[0, 1] > 0.9


def test_sizes(tmp_path):
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = PATTERN
    image = Image.fromarray(wide)
    for resize in ("cover", "crop"):
        np.testing.assert_array_equal(one(image, tmp_path, resize=resize), PATTERN.reshape(-1))
    squeezed = one(image, tmp_path, resize="stretch")
    assert squeezed.mean() == pytest.approx(wide.mean(), abs=10) and PATTERN.mean() > wide.mean() + 20
    large = Image.fromarray(np.kron(PATTERN, np.ones((8, 8), np.uint8)))
    assert np.corrcoef(one(large, tmp_path), PATTERN.reshape(-1))[0, 1] > 0.95
    with refused("12 x 4 pixels, too small for data.resize=crop"):
        one(image, tmp_path, resize="crop", length=64)
    for length, shape in {64: (8, 8, 1), 3072: (32, 32, 3), 3: (1, 1, 3)}.items():
        assert image_shape(fields("image_files", length=length)) == shape
    with refused("data.length: 1000 is neither .*; pass 1024 for 32 x 32 in gray, or 3072 in RGB"):
        load_dataset(settings(tmp_path, length=1000))
    with refused("data.vocab_size: image_files has 2 to 256 levels per color, not 1024"):
        load_dataset(settings(tmp_path, vocab_size=1024))


def test_folders_are_classes_and_equal_files_share_a_split(tmp_path):
    folder = draw(tmp_path / "images", *(f"{label}/deep/{i}.png" for label in "ba" for i in range(20)))
    for i in range(20):
        (folder / f"b/copy {i}.png").write_bytes((folder / f"a/deep/{i}.png").read_bytes())
    write(folder, {"notes.txt": "x", "a/list.csv": "x", ".hidden.png": "x", ".git/b.png": "x"})
    with pytest.warns(UserWarning, match=r"data\.path: 2 files of .* are not images \(\.png, .*\) and are left out"):
        data = load_dataset(settings(folder))
    assert data.label_names == ("a", "b") and data.labels == label_count(fields("image_files", folder)) == 2
    contents = {split: {row.tobytes() for row in rows(data, split)["tokens"]} for split in data.splits}
    assert {split: len(each) for split, each in contents.items()} == {"train": 36, "validation": 2, "test": 2}
    assert not contents["train"] & (contents["validation"] | contents["test"])
    labels = [set(rows(data, "train")["label"][:12]), np.bincount(rows(data, "train")["label"])]
    assert labels[0] == {0, 1} and labels[1].sum() + sizes(data)["validation"] + sizes(data)["test"] == 60
    assert data.image == (4, 4, 1) and data.domain == "image" and data.statistics["train"].bytes == 16 * labels[1].sum()


def test_images_are_decoded_once_and_a_changed_file_is_noticed(tmp_path, monkeypatch):
    folder, decoded = draw(tmp_path / "images", *(f"{i}.png" for i in range(5))), []
    read = image_files.pixels
    monkeypatch.setattr(image_files, "pixels", lambda *words: decoded.append(1) or read(*words))
    first, hashed = load_dataset(settings(folder)), content_hash(str(folder))
    assert load_dataset(settings(folder)).fingerprint == first.fingerprint and len(decoded) == 5
    assert sizes(first) == {"train": 3, "validation": 1, "test": 1} and first.labels == 0
    assert "label" not in rows(first, "train")
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    for path in (f"{folder}/", "images", "link", "./link/"):
        same = load_dataset(fields("image_files", path, cache_dir=str(tmp_path / "cache")))
        assert same.fingerprint == first.fingerprint and content_hash(path) == hashed
    for resize in ("stretch", "crop"):
        assert load_dataset(settings(folder, resize=resize)).fingerprint != first.fingerprint
    draw(folder, "3.png")
    reread()
    assert load_dataset(settings(folder)).fingerprint != first.fingerprint and content_hash(str(folder)) != hashed


NESTED = ("a/1", "a/2", "b/1", "b/2")


def test_folders_of_splits(tmp_path):
    folder = draw(
        tmp_path / "images", *(f"{split}/{label}/{i}.png" for split in ("train", "val") for label in "ab" for i in "12")
    )
    data = load_dataset(settings(folder))
    assert sizes(data) == {"train": 4, "validation": 4, "test": 4} and data.label_names == ("a", "b")
    np.testing.assert_array_equal(rows(data, "test")["tokens"], rows(data, "validation")["tokens"])
    (folder / "Test").mkdir()
    write(folder, {"Test/a/1.png": (folder / "train/a/1.png").read_bytes()})
    with pytest.warns(UserWarning, match=r"data\.path: 1 images of validation and test are in train, too"):
        assert sizes(load_dataset(settings(folder))) == {"train": 4, "validation": 4, "test": 1}
    # A class may be called train, and the folder train alone is split by content.
    draw(tmp_path / "things", *(f"{label}/{i}.png" for label in ("train", "car") for i in "12"))
    assert load_dataset(settings(tmp_path / "things")).label_names == ("car", "train")
    draw(tmp_path / "whole", *(f"train/{i}.png" for i in "123"))
    data = load_dataset(settings(tmp_path / "whole"))
    assert sizes(data) == {"train": 1, "validation": 1, "test": 1} and data.labels == 0


NAMES = tuple(f"{i}.png" for i in range(5))
SPLIT = ("train/a.png", "test/a.png")
TWO = tuple(f"{label}/{i}.png" for label in "ab" for i in "123")
WRONG = [
    (
        SPLIT,
        {"train/empty.jpg": "", "train/b.png": "x"},
        r"2 images .* \(train\) cannot be read: train/b\.png \(not",
    ),
    (SPLIT, {"test/b.png": "hello"}, r"1 image of .* cannot be read: test/b\.png \(not an image\); replace or remove"),
    (NAMES[:2], {}, "holds 2 different images; pass at least 3"),
    ((), {"notes.txt": "hello"}, r"'.*' holds no images \(\.png, .*\); pass"),
    ((*TWO, "c.png"), {}, r"c\.png of .* is in no folder of a class, as others are"),
    (("train/a/1.png", "train/b/1.png", "test/c/1.png"), {}, r"test/c/1\.png .* is in the class c, which train lacks"),
    (("train/1.png", "test/1.png", "2.png"), {}, r"has folders of the splits test, train, but 2\.png is in none"),
    (("test/1.png", "val/1.png"), {}, "has folders of the splits test, validation, but there is no train"),
]


@pytest.mark.parametrize(("names", "files", "message"), WRONG)
def test_what_cannot_be_read_is_named(names, files, message, tmp_path):
    folder = write(draw(tmp_path / "images", *names), files)
    with warnings.catch_warnings(action="ignore"), refused(rf"data\.path: .*{message}"):
        load_dataset(settings(folder))
    assert not any((tmp_path / "cache").rglob("*.json"))


def test_a_classifier_needs_classes(tmp_path):
    for table in (prime_images, scmdm_images):
        for judge, found in (("classifier", True), ("none", False)):
            config = table.get_config("debug")
            config.judge.name = judge
            assert ("Classifier" in [row["name"] for row in table.rows(config)]) == found
    folder = draw(tmp_path / "images", *NAMES)
    with refused(r"data\.path: the images in .* have no classes, .* or pass --config\.judge\.name=none"):
        label_count(fields("image_files", folder))
    with refused(r"data\.path: empty; pass --config\.data\.path=FOLDER of images"):
        label_count(fields("image_files"))
    whole = draw(folder, "6.png").joinpath("6.png")
    whole.write_bytes(whole.read_bytes()[:60])
    with refused(r"6\.png \((?!not an image).*\); replace or remove"):
        load_dataset(settings(folder))
