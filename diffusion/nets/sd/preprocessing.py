"""Images as the encoders of CLIP, HPS and ImageReward take them: resized, cropped to a square, and normalized.

Resizing is bicubic with antialiasing, that of Pillow and torchvision, as one matrix for rows and one for columns, so
that it has a gradient and runs as matrix products.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Images = Float[Array, "B H W 3"]
Squares = Float[Array, "B size size 3"]
MEAN = (0.48145466, 0.4578275, 0.40821073)
STANDARD_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def cubic(distance: Float[np.ndarray, "O I"]) -> Float[np.ndarray, "O I"]:
    """Return the cubic convolution kernel with a = -1/2 (Keys, 1981)."""
    x = np.abs(distance)
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def resize_matrix(inputs: int, outputs: int) -> Float[np.ndarray, "O I"]:
    """Return the matrix of bicubic resizing with antialiasing from `inputs` to `outputs` pixels, in float32.

    Output i is at (i + 1/2) inputs / outputs - 1/2. Where images shrink, the kernel is wider by inputs / outputs. Each
    row sums to 1, also at borders.
    """
    ratio = inputs / outputs
    centers = (np.arange(outputs)[:, None] + 0.5) * ratio
    weights = cubic((np.arange(inputs)[None] + 0.5 - centers) / max(ratio, 1.0))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def cropped_matrix(inputs: int, outputs: int, size: int) -> Float[np.ndarray, "size I"]:
    """Return the rows of the matrix of resizing that a center crop to `size` keeps."""
    start = round((outputs - size) / 2)
    return resize_matrix(inputs, outputs)[start : start + size]


def as_8_bit(images: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Return images in [0, 1] as an 8-bit file holds them: the nearest multiple of 1/255; the gradient is zero."""
    return jnp.round(jnp.clip(images, 0.0, 1.0) * 255.0) / 255.0


def resize_and_crop(images: Images, size: int, eight_bit: bool = False) -> Squares:
    """Return the central squares of images whose shortest side is resized to `size` pixels.

    With `eight_bit`, values are rounded after each of the two products as Pillow does for 8-bit images, to the nearest
    level, and lie in [0, 1]; else the result is linear in the images and can exceed their range at edges.
    """
    height, width = images.shape[1:3]
    short = min(height, width)
    rows, columns = (cropped_matrix(side, int(size * side / short), size) for side in (height, width))
    rounded = as_8_bit if eight_bit else lambda x: x
    exact = jax.lax.Precision.HIGHEST
    wide = rounded(jnp.einsum("tw,bhwc->bhtc", columns, images.astype(jnp.float32), precision=exact))
    return rounded(jnp.einsum("sh,bhtc->bstc", rows, wide, precision=exact))


def preprocess(images: Images, size: int = 224, eight_bit: bool = False) -> Squares:
    """Return images in [0, 1] resized, cropped to `size` x `size` pixels, and normalized with CLIP's constants.

    `eight_bit` rounds them before and while they are resized, as a reward model sees saved images. It has no gradient;
    leave it out where the reward guides.
    """
    squares = resize_and_crop(as_8_bit(images) if eight_bit else images, size, eight_bit)
    mean, deviation = (np.array(values, np.float32)[None, None, None] for values in (MEAN, STANDARD_DEVIATION))
    return (squares - mean) / deviation
