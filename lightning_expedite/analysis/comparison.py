"""Pixel counts of every image, and the difference of a run from its baseline on the images that both have."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import IMAGES_FILE
from .schema import Evaluation, ImageLine, check

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ImageCounts:
    """Pixel counts of N images and K classes; ``images`` are index, name, height and width of each."""

    images: tuple[tuple[int, str, int, int], ...]
    intersection: Counts  # (N, K)
    prediction: Counts  # (N, K)
    label: Counts  # (N, K)
    digests: tuple[str | None, ...] = ()  # of each image and its label

    @cached_property
    def positions(self) -> dict[str, int]:
        """Row of each image by its name."""
        return {name: row for row, (_, name, _, _) in enumerate(self.images)}

    @cached_property
    def union(self) -> Counts:
        """Pixels of a class in prediction or label, ``(N, K)``."""
        return self.prediction + self.label - self.intersection

    @property
    def iou(self) -> Floats:
        """IoU of each class in percent over all images, ``(K,)``; NaN for a class in neither prediction nor label."""
        union = self.union.sum(axis=0)
        return np.where(union > 0, 100 * self.intersection.sum(axis=0) / np.maximum(union, 1), np.nan)

    @property
    def miou(self) -> float:
        """The mIoU in percent over all images."""
        return float(mean_iou(self.intersection.sum(axis=0), self.union.sum(axis=0)))

    def select(self, names: Sequence[str]) -> "ImageCounts":
        """Return the counts of the named images, in this order."""
        rows = [self.positions[name] for name in names]
        images = tuple(self.images[row] for row in rows)
        digests = tuple(self.digests[row] for row in rows) if self.digests else ()
        return ImageCounts(images, self.intersection[rows], self.prediction[rows], self.label[rows], digests)


def mean_iou(intersection: Counts | Floats, union: Counts | Floats) -> Floats:
    """Compute mIoU in percent from counts summed over images, as `evaluation.metrics.scores_of` does.

    Args:
        intersection: ``(..., K)``, integers.
        union: ``(..., K)``, integers.

    Returns:
        ``(...)``: the mean over the classes whose union is not 0; NaN if there is none.
    """
    present = union > 0
    with np.errstate(invalid="ignore"):
        iou = 100 * intersection.astype(np.float64) / np.where(present, union, 1)
        mean: Floats = np.where(present, iou, 0.0).sum(axis=-1) / present.sum(axis=-1)
    return mean


@lru_cache(maxsize=256)
def read_counts(evaluation: Evaluation) -> ImageCounts:
    """Read ``images.jsonl`` beside a ``results.json``.

    Raises:
        DataError: It is missing or damaged, or its counts do not add up to those of ``results.json``.
    """
    path = evaluation.path.with_name(IMAGES_FILE)
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    rows = [check(line, ImageLine, f"{path}, line {number},") for number, line in enumerate(lines, start=1)]
    counts = np.zeros((3, len(rows), len(evaluation.label)), np.int64)
    for number, row in enumerate(rows):
        if max(row.classes, default=-1) >= len(evaluation.label):
            raise DataError(f"{path}, line {number + 1}: there is no class {max(row.classes)}; run the test again")
        counts[:, number, row.classes] = [row.intersection, row.prediction, row.label]
    for name, values in zip(("intersection", "prediction", "label"), counts, strict=True):
        if len(rows) != evaluation.images or values.sum(axis=0).tolist() != getattr(evaluation, name):
            raise DataError(
                f"{path}: the counts of {name} do not add up to those of {evaluation.path}: the files are of different "
                "runs; run the test again"
            )
    images = tuple((row.index, row.name, row.height, row.width) for row in rows)
    return ImageCounts(images, counts[0], counts[1], counts[2], tuple(row.digest for row in rows))


def compare_with_baseline(run: Evaluation, baseline: Evaluation) -> dict[str, Any]:
    """Return what the results table has of a run's difference from its baseline, on the images that both have."""
    reason = obstacle(run, baseline)
    if reason is not None:
        return {"obstacle": reason}
    images = None
    if (run.images, run.label) == (baseline.images, baseline.label):
        scores = [np.array([one.mIoU, *(score.IoU for score in one.per_class)], float) for one in (run, baseline)]
    else:
        try:
            pair = common_counts(run, baseline)
        except DataError as error:
            return {"obstacle": f"it has other images or labels than the baseline, and {error}"}
        if isinstance(pair, str):
            return {"obstacle": pair}
        images = len(pair[0].images)
        scores = [np.array([counts.miou, *counts.iou]) for counts in pair]
    difference, *classes = (scores[0] - scores[1]).tolist()
    return {"mIoU_difference": difference, "class_differences": classes, "compared_images": images}


def obstacle(run: Evaluation, baseline: Evaluation) -> str | None:
    """Return why two runs cannot be compared on any image: other weights, images, labels or classes."""
    names = {**baseline.weights, **run.weights} if run.weights and baseline.weights else {}
    changed = [name for name in names if run.weights.get(name) != baseline.weights.get(name)]
    if changed:
        return f"the weights changed between the runs ({', '.join(changed)})"
    # Earlier versions hashed in another way; runs of different numbers of images are compared image by image.
    alike = (run.data_files is None) == (baseline.data_files is None) and run.images == baseline.images
    if alike and len({run.data_hash, baseline.data_hash} - {None}) > 1:
        return "images or labels changed between the runs"
    return None if run.classes == baseline.classes else "its classes are not those of the baseline"


def common_counts(run: Evaluation, baseline: Evaluation) -> tuple[ImageCounts, ImageCounts] | str:
    """Return the counts of the images that both have, in the baseline's order, or why they cannot be compared.

    Raises:
        DataError: The ``images.jsonl`` of one of them is missing or damaged.
    """
    counts, others = read_counts(run), read_counts(baseline)
    names = [name for _, name, _, _ in others.images if name in counts.positions]
    if not names:
        return "it has no image in common with the baseline"
    if counts.label.shape[1] != others.label.shape[1]:
        return "its classes are not those of the baseline"
    tested, reference = counts.select(names), others.select(names)
    wrong = (tested.label != reference.label).any(axis=1)
    wrong |= np.array([one[2:] != other[2:] for one, other in zip(tested.images, reference.images, strict=True)])
    digests = zip(tested.digests, reference.digests, strict=True)
    wrong |= np.array([None not in pair and pair[0] != pair[1] for pair in digests])
    if wrong.any():
        changed = f"{wrong.sum()} of {len(names)}, such as {names[wrong.argmax()]}"
        return f"images or labels changed between the runs ({changed})"
    return tested, reference


def best_baseline(run: Evaluation, baselines: Sequence[Evaluation]) -> Evaluation | None:
    """Return the baseline that is most like a run: comparable, then of the same protocol, images and precision."""

    def likeness(baseline: Evaluation) -> tuple[bool, ...]:
        alike = (getattr(run, name) == getattr(baseline, name) for name in ("protocol", "images", "precision"))
        return obstacle(run, baseline) is None, *alike

    return max(baselines, key=likeness, default=None)
