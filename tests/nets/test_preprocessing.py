"""Preprocessing of images for CLIP, compared with Pillow's antialiased bicubic resizing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion.nets.sd import preprocessing

RECORDED = [-0.00020431949815247208, 0.02452223189175129, 0.14981257915496826, 0.364755243062973]
SIZES = [(32, 32, 14), (14, 14, 32), (45, 30, 14), (30, 47, 14), (21, 24, 21)]


def images(height, width, count=2, seed=0):
    return jnp.asarray(np.random.default_rng(seed).random((count, height, width, 3), np.float32))


def pillow(image, size):
    """The float image [H, W, 3] resized by Pillow channel by channel, and its central square."""
    height, width = image.shape[:2]
    short = min(height, width)
    target = (int(size * width / short), int(size * height / short))
    channels = [np.asarray(Image.fromarray(image[..., c]).resize(target, Image.Resampling.BICUBIC)) for c in range(3)]
    top, left = round((target[1] - size) / 2), round((target[0] - size) / 2)
    return np.stack(channels, axis=-1)[top : top + size, left : left + size]


@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_floats_are_resized_as_by_pillow(height, width, size):
    batch = images(height, width)
    expected = np.stack([pillow(np.asarray(image), size) for image in batch])
    result = preprocessing.resize_and_crop(batch, size)
    assert result.shape == (2, size, size, 3)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_8_bit_images_are_resized_as_by_pillow():
    levels = np.random.default_rng(1).integers(0, 256, (1, 64, 48, 3), np.uint8)
    reference = Image.fromarray(levels[0]).resize((14, 18), Image.Resampling.BICUBIC).crop((0, 2, 14, 16))
    result = (
        255 * np.asarray(preprocessing.resize_and_crop(jnp.asarray(levels / np.float32(255)), 14, eight_bit=True))[0]
    )
    difference = np.abs(result - np.asarray(reference, np.float32))
    assert difference.max() < 1.01 and (difference > 0.01).mean() < 0.01


def test_the_resizing_of_torchvision_has_the_recorded_values():
    """The numbers are those of torch's bicubic interpolate with antialias=True, without aligned corners."""
    ramp = np.linspace(0, 1, 12 * 9 * 3, dtype=np.float32).reshape(1, 12, 9, 3) ** 3
    result = np.asarray(preprocessing.resize_and_crop(jnp.asarray(ramp), 4))[0]
    np.testing.assert_allclose(result[[0, 1, 2, 3], [0, 1, 3, 2], [0, 2, 1, 0]], RECORDED, rtol=1e-5, atol=1e-7)


def test_preprocessing_normalizes_and_rounds():
    batch = images(20, 20)
    squares = np.asarray(preprocessing.resize_and_crop(batch, 10))
    expected = (squares - np.array(preprocessing.MEAN)) / np.array(preprocessing.STANDARD_DEVIATION)
    np.testing.assert_allclose(preprocessing.preprocess(batch, 10), expected, atol=1e-5)
    rounded = np.asarray(preprocessing.preprocess(batch, 10, eight_bit=True))
    levels = 255 * (rounded * preprocessing.STANDARD_DEVIATION + preprocessing.MEAN)
    assert np.abs(levels - np.round(levels)).max() < 1e-3
    assert 0.05 < np.abs(rounded - expected).max() * 0.26 * 255 < 2


def test_8_bits_are_the_nearest_levels():
    levels = preprocessing.as_8_bit(jnp.float32([-0.2, 0.499, 0.5, 0.503, 1.3]).reshape(1, 1, 5, 1)) * 255
    np.testing.assert_allclose(np.ravel(levels), [0, 127, 128, 128, 255], atol=1e-4)


def test_the_gradient_is_that_of_a_linear_map():
    batch, direction = images(20, 26), images(10, 10, seed=1)
    _, pullback = jax.vjp(lambda x: preprocessing.resize_and_crop(x, 10), batch)
    (gradient,) = pullback(direction)
    other = images(20, 26, seed=2)
    applied = np.asarray(preprocessing.resize_and_crop(other, 10))
    np.testing.assert_allclose((gradient * other).sum(), (direction * applied).sum(), rtol=1e-5)
