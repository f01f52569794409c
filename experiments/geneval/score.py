"""Verdicts on a folder of images, in results.jsonl: one line an image, with the fields of the published scripts.

Beside those, each line names detector and CLIP by folder and content, and has the start of the file's hash, so that an
interrupted run goes on, images that were made again are scored again, and results of two detectors are not mixed.
"""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from diffusion.data.geneval import Metadata, PromptImages, check_image, read_image
from diffusion.metrics.geneval import Detection, best_of, verdict
from diffusion.storage import Appender, ObjectPath, atomic_write
from experiments.geneval.colors import Colors
from experiments.geneval.detector import COUNTING_THRESHOLD, THRESHOLD, Detector
from experiments.geneval.segments import Segment
from experiments.geneval.summary import parsed

RESULTS = "results.jsonl"
HASH = 16  # characters of a file's SHA-256


def colored_classes(metadata: Metadata) -> dict[str, int]:
    """Return the classes for which a prompt asks for a color, with the number of objects that it asks for."""
    colored = [(each["class"], each["count"]) for each in metadata["include"] if "color" in each]
    return {name: max(count for other, count in colored if other == name) for name, _ in colored}


def judge(
    metadata: Metadata, image: UInt8[np.ndarray, "H W 3"], segments: Sequence[Segment], colors: Colors | None
) -> dict:
    """Return the fields "correct", "reason" and "details" of an image.

    Details are the boxes with scores, by class, of the detections above the threshold. Colors are found for the best
    detections of the classes for which the prompt asks for one.
    """
    thresholds = (THRESHOLD, COUNTING_THRESHOLD)
    groups = best_of(metadata, [segment.detection for segment in segments], *thresholds)
    by_identity = {id(segment.detection): segment for segment in segments}
    for name, count in colored_classes(metadata).items():
        chosen = groups.get(name, [])[:count]
        if chosen:
            if colors is None:
                raise ValueError("--clip: missing, but a prompt asks for a color; pass --clip=FOLDER")
            found = colors(image, [by_identity[id(detection)] for detection in chosen], name)
            named = [detection._replace(color=color) for detection, color in zip(chosen, found, strict=True)]
            groups[name][:count] = named
    # The verdict takes the later of equal scores first.
    ordered = [detection for group in groups.values() for detection in reversed(group)]
    correct, reason = verdict(metadata, ordered, *thresholds)
    details = {name: [_row(detection) for detection in group] for name, group in groups.items()}
    return {"correct": correct, "reason": reason, "metadata": json.dumps(metadata), "details": json.dumps(details)}


def _row(detection: Detection) -> list[float]:
    return [*detection.box, detection.score]


def score_images(
    root: Path, tree: Sequence[PromptImages], detector: Detector, colors: Colors | None, clip: str = ""
) -> list[dict]:
    """Return the results of all images of `read_tree(root)`, in its order, and leave them in root/results.jsonl.

    Images that have a result there are not scored again. `clip` names the CLIP of the colors.

    Raises:
      ValueError: for damaged images, before any is scored, and for results of another detector or CLIP.
    """
    images = {path.relative_to(root).as_posix(): each.metadata for each in tree for path in each.files}
    expected = {
        name: {
            "metadata": json.dumps(metadata),
            "detector": detector.label,
            "clip": clip if colored_classes(metadata) else "",
            "sha256": digest(root / name),
        }
        for name, metadata in images.items()
    }
    done = finished(root / RESULTS, expected)
    waiting = [name for name in images if name not in done]
    if waiting and not isinstance(root, ObjectPath) and not os.access(root, os.W_OK):
        raise ValueError(f"images: '{root}' cannot be written, where {RESULTS} goes; copy the folder")
    bar = tqdm(waiting, desc="images", disable=not sys.stderr.isatty(), leave=False)
    if not waiting:
        return [done[name] for name in images]
    with closing(Appender(root / RESULTS)) as results:
        for name in bar:
            metadata, image = images[name], read_image(root / name)
            result = {"filename": name, "tag": metadata["tag"], "prompt": metadata["prompt"]}
            done[name] = result | judge(metadata, image, detector.find(image), colors) | expected[name]
            results.write(json.dumps(done[name]) + "\n")
    return [done[name] for name in images]


def digest(path: Path) -> str:
    """Return the start of the SHA-256 of a whole image; raises ValueError if it is damaged."""
    check_image(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:HASH]


def finished(file: Path, expected: dict[str, dict[str, str]]) -> dict[str, dict]:
    """Return the results in a file that are of images as they are now.

    Other lines, and a last line that is cut short, are removed from the file.

    Raises:
      ValueError: for a line that is no result, and for results of another detector or CLIP.
    """
    if not file.is_file():
        return {}
    text = file.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.split("\n") if line.strip()]
    done: dict[str, dict] = {}
    for number, line in enumerate(lines, 1):
        result = parsed(line)
        if result is None and number == len(lines) and not text.endswith("\n"):
            continue
        if result is None:
            raise ValueError(f"results: line {number} of '{file}' is not a result of GenEval; delete the file")
        wanted = expected.get(result["filename"], {})
        if not wanted or any(result.get(field) != wanted[field] for field in ("metadata", "sha256")):
            continue
        for field in ("detector", "clip"):
            if result.get(field) != wanted[field]:
                raise ValueError(
                    f"--{field}: '{file}' has results of {result.get(field) or 'none'!r}, not of "
                    f"{wanted[field] or 'none'!r}; move the file away, or pass what it was made with"
                )
        done[result["filename"]] = result
    kept = "".join(json.dumps(result) + "\n" for result in done.values())
    if kept != text:
        atomic_write(file, kept)
    return done
