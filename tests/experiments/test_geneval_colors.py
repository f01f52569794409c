"""GenEval's colors: crops of objects, embeddings of colors, and the nearest color."""

import numpy as np

from diffusion.metrics.geneval import COLORS
from experiments.geneval.colors import TEMPLATES, color_classifier, color_embeddings, crop
from tests.experiments.test_geneval import segment

RGB = dict(zip(COLORS, np.random.default_rng(0).normal(size=(10, 5)), strict=True))


def text_features(texts):
    """Features of the color's name, of a different norm for each text."""
    return np.stack([RGB[next(c for c in COLORS if c in text)] * len(text) for text in texts])


def test_crops_are_grey_outside_of_the_mask():
    image = np.random.default_rng(0).integers(0, 100, (20, 20, 3), dtype=np.uint8)
    one = segment("dog", (2, 3, 7, 9))
    one.mask[3, 2] = False
    cut = crop(image, one)
    assert cut.shape == (6, 5, 3) and (cut[0, 0] == 0x99).all()
    expected = image[3:9, 2:7].copy()
    expected[0, 0] = 0x99
    np.testing.assert_array_equal(cut, expected)


def test_color_embeddings_are_normalized_means_of_three_prompts():
    seen = []

    def features(texts):
        seen.extend(texts)
        return np.random.default_rng(len(texts)).normal(size=(len(texts), 4))

    found = color_embeddings(features, "dog")
    assert seen[:3] == ["a photo of a red dog", "a photo of a red-colored dog", "a photo of a red object"]
    assert len(seen) == len(COLORS) * len(TEMPLATES) and seen[-1] == "a photo of a white object"
    rows = np.random.default_rng(30).normal(size=(30, 4))[3:6]
    mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(found[1], mean / np.linalg.norm(mean))


def test_the_color_is_the_nearest_and_texts_of_a_class_are_encoded_once():
    calls = []

    def texts(texts):
        calls.append(texts)
        return text_features(texts)

    # The first pixel of an image says which color it is.
    colors = color_classifier(lambda images: np.stack([3 * RGB[COLORS[image[0, 0, 0]]] for image in images]), texts)
    image = np.zeros((20, 20, 3), np.uint8)
    image[0, 0], image[5, 5] = 4, 9
    objects = [segment("dog", (0, 0, 4, 4)), segment("dog", (5, 5, 9, 9))]
    for _ in range(2):
        assert colors(image, objects, "dog") == ["blue", "white"]
    assert len(calls) == 1
    colors(image, objects, "cat")
    assert len(calls) == 2
