"""GenEval's detector: its input, its objects against PyTorch and recorded numbers, and tiny random weights."""

import sys

import numpy as np
import pytest

from diffusion.data.geneval import CLASSES
from experiments.geneval.detector import MISSING, RANDOM_LABEL, load_detector, random_network
from experiments.geneval.segments import (
    MEAN,
    STANDARD_DEVIATION,
    input_size,
    padded_size,
    preprocess,
    resized,
    segments,
    tight_box,
)
from tests.checks import refused

DOG = CLASSES.index("dog")


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def outputs(seed=0, queries=8, side=200):
    """Smooth mask logits and a few confident classes, as float32 arrays that need no other library."""
    rng = np.random.default_rng(seed)
    classes = rng.normal(0, 1, (queries, 81))
    for query in range(queries):
        classes[query, rng.integers(81, size=2)] += 6
    masks = resized(rng.normal(-4, 4, (queries, 6, 6)), (side, side))
    return classes.astype(np.float32), masks.astype(np.float32)


def summed(found):
    """Numbers of objects, scores, boxes and pixels, in one row."""
    boxes = np.array([segment.detection.box for segment in found])
    scores = sum(segment.detection.score for segment in found)
    return [len(found), scores, *boxes.sum(axis=0), sum(segment.mask.sum() for segment in found)]


def test_known_interpolation():
    x = np.array([[0.0, 1.0]])
    np.testing.assert_allclose(resized(x, (1, 4)), [[0, 0.25, 0.75, 1]])
    np.testing.assert_allclose(resized(np.arange(6.0)[None], (1, 3)), [[0.5, 2.5, 4.5]])
    np.testing.assert_allclose(resized(x.T, (4, 2))[:, 1], [0, 0.25, 0.75, 1])
    np.testing.assert_array_equal(resized(np.ones((2, 1, 1)), (3, 2)), np.ones((2, 3, 2)))


def test_interpolation_is_that_of_pytorch(torch):
    x = np.random.default_rng(0).normal(size=(3, 25, 31)).astype(np.float32)
    for size in ((100, 40), (13, 70), (25, 31), (1, 1)):
        wanted = torch.nn.functional.interpolate(torch.from_numpy(x)[None], size, mode="bilinear", align_corners=False)
        np.testing.assert_allclose(resized(x, size), wanted[0].numpy(), atol=1e-5 * np.abs(x).max())


@pytest.mark.parametrize(
    ("image", "size", "padded"),
    [
        ((512, 512), (800, 800), (800, 800)),
        ((1024, 1024), (800, 800), (800, 800)),
        ((480, 640), (800, 1067), (800, 1088)),
        ((900, 300), (1333, 444), (1344, 448)),
    ],
)
def test_images_fit_into_800_by_1333(image, size, padded):
    assert input_size(*image) == size and padded_size(size) == padded


def test_input_is_normalized_and_padded_with_zeros():
    image = np.empty((3, 4, 3), np.uint8)
    image[:] = (10, 200, 99)
    pixels = preprocess(image)
    assert pixels.shape == (3, 800, 1088) and pixels.dtype == np.float32
    for channel, value in enumerate((10, 200, 99)):
        expected = (value - MEAN[channel]) / STANDARD_DEVIATION[channel]
        np.testing.assert_allclose(pixels[channel, :, :1067], expected, rtol=1e-6)
    assert not pixels[:, :, 1067:].any()
    half = np.array([[[0] * 3, [255] * 3]], np.uint8)
    # Values between pixels are whole numbers, as those of an image.
    levels = preprocess(half)[0, 0, :1333] * STANDARD_DEVIATION[0] + MEAN[0]
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    assert 0 < len(set(np.rint(levels).astype(int)) - {0, 255})


def logits_of(**probabilities):
    """Logits of one query with these probabilities of classes; the rest is "no object"."""
    row = np.full(81, 1e-12)
    for name, share in probabilities.items():
        row[CLASSES.index(name)] = share
    row[80] = 1 - sum(probabilities.values())
    return np.log(row)[None].astype(np.float32)


def test_a_query_may_stand_for_two_classes_and_scores_include_the_mask():
    found = segments(logits_of(dog=0.5, cat=0.4), np.full((1, 200, 200), 2.0, np.float32), (20, 30), least=0.01)
    certainty = 1 / (1 + np.exp(-2))
    assert [segment.detection.name for segment in found] == ["dog", "cat"]
    scores = [segment.detection.score for segment in found]
    np.testing.assert_allclose(scores, [0.5 * certainty, 0.4 * certainty], rtol=1e-5)
    assert all(segment.detection.box == (0, 0, 30, 20) and segment.mask.all() for segment in found)


def test_masks_are_where_logits_are_positive_in_the_image_without_padding():
    """An image of 60 x 300 is 267 x 1333 at the input and padded to 288 x 1344, a quarter of which is 72 x 336."""
    mask = np.full((1, 72, 336), -3.0, np.float32)
    mask[0, 15:60, :168] = 3
    (found,) = segments(logits_of(dog=0.9), mask, (60, 300), least=0.5)
    # Row 240 of 267 is at 53.9 of 60, column 672 of 1333 at 151.2 of 300.
    assert found.detection.box == tight_box(found.mask) == (0, 13, 151, 54)
    assert found.mask.shape == (60, 300) and found.mask.sum() == 151 * 41
    assert 0.8 * 0.9 < found.detection.score < 0.9 / (1 + np.exp(-3))


def test_empty_masks_are_dropped():
    assert segments(logits_of(dog=0.9), np.full((1, 200, 200), -1.0, np.float32), (20, 20)) == []


def test_only_a_hundred_pairs_of_query_and_class_are_kept():
    classes, masks = np.zeros((3, 81), np.float32), np.ones((3, 200, 200), np.float32)
    classes[2, DOG] = 1
    found = segments(classes, masks, (8, 8))
    assert len(found) == 100 and found[0].detection.name == "dog"
    # 240 equal pairs but one: those of the first query, and the first ones of the second.
    assert [segment.detection.name for segment in found[1:]] == [*CLASSES, *CLASSES[:19]]


def test_pairs_below_the_threshold_change_nothing():
    every = [each for each in segments(*outputs(), (48, 48)) if each.detection.score > 0.3]
    few = [each for each in segments(*outputs(), (48, 48), least=0.3) if each.detection.score > 0.3]
    assert [each.detection for each in every] == [each.detection for each in few] and len(few) > 3


def by_pytorch(torch, classes, masks, size):
    """The steps of mmdet on tensors."""
    inside = input_size(*size)
    functional = torch.nn.functional
    probabilities = functional.softmax(torch.from_numpy(classes), -1)[:, :-1].flatten()
    scores, indices = probabilities.topk(100)
    masks = functional.interpolate(
        torch.from_numpy(masks)[None], padded_size(inside), mode="bilinear", align_corners=False
    )[0, :, : inside[0], : inside[1]]
    masks = functional.interpolate(masks[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    masks = masks[indices // 80]
    binary = (masks > 0).float()
    scores = scores * (masks.sigmoid() * binary).flatten(1).sum(1) / (binary.flatten(1).sum(1) + 1e-6)
    return scores.numpy(), [CLASSES[index % 80] for index in indices.tolist()], binary.bool().numpy()


def test_objects_are_those_of_pytorch(torch):
    for size in ((64, 64), (40, 50)):
        classes, masks = outputs(1)
        masks = masks if size == (64, 64) else resized(masks, (200, 256))
        scores, names, binary = by_pytorch(torch, classes, masks, size)
        found = segments(classes, masks, size)
        kept = [index for index in range(100) if binary[index].any()]
        assert [segment.detection.name for segment in found] == [names[index] for index in kept]
        np.testing.assert_allclose([segment.detection.score for segment in found], scores[kept], rtol=1e-5)
        assert np.mean([segment.mask != binary[index] for segment, index in zip(found, kept, strict=True)]) < 1e-4


def test_objects_are_the_recorded_ones():
    """Number, sums of scores and of the sides of boxes, and pixels, by the steps in PyTorch."""
    recorded = [100, 5.2554895, 844, 742, 5445, 5548, 26997]
    np.testing.assert_allclose(summed(segments(*outputs(1), (64, 64))), recorded, rtol=1e-6)


def test_another_number_of_classes_is_refused():
    with refused("geneval: the detector has 133 classes, not the 80 of COCO; use"):
        segments(np.zeros((2, 134), np.float32), np.zeros((2, 8, 8), np.float32), (8, 8))


@pytest.mark.filterwarnings("ignore")
def test_a_tiny_random_detector_finds_objects(torch, tmp_path):
    pytest.importorskip("transformers")
    detector = load_detector("random")
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 255, (8, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    found = detector.find(image)
    assert detector.label == RANDOM_LABEL and found
    for segment in found:
        assert segment.mask.shape == (64, 48) and segment.detection.box == tight_box(segment.mask)
        assert 0 < segment.detection.score < 1 and segment.detection.name in CLASSES
    random_network().save_pretrained(tmp_path / "weights")
    saved = load_detector(str(tmp_path / "weights"))
    assert saved.label == "weights"
    assert [each.detection for each in saved.find(image)] == [each.detection for each in found]


@pytest.mark.filterwarnings("ignore")
def test_wrong_folders_of_detectors_are_refused(torch, tmp_path):
    transformers = pytest.importorskip("transformers")
    with refused("--detector: '.*nowhere' has no config.json; pass a folder"):
        load_detector(str(tmp_path / "nowhere"))
    model = random_network()
    model.save_pretrained(tmp_path / "part")
    del model.class_predictor
    model.save_pretrained(tmp_path / "part")
    with refused("--detector: '.*part' lacks 2 weights of Mask2Former, such as 'class_predictor.bias'; download"):
        load_detector(str(tmp_path / "part"))
    (tmp_path / "part" / "model.safetensors").write_bytes(b"no weights")
    with refused("--detector: '.*part' cannot be loaded as Mask2Former"):
        load_detector(str(tmp_path / "part"))
    config = random_network().config
    config.num_labels = 133
    transformers.Mask2FormerForUniversalSegmentation(config).save_pretrained(tmp_path / "panoptic")
    with refused("--detector: '.*panoptic' has 133 classes, not the 80 of COCO's instances; pass"):
        load_detector(str(tmp_path / "panoptic"))


def test_a_missing_library_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with refused(MISSING):
        load_detector("random")
