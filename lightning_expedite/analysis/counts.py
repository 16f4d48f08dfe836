"""Pixel counts of every image of a test, and the mIoU of any selection of them; numpy alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .runs import IMAGES_FILE, Test

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ImageCounts:
    """Counts of N images and K classes; ``images`` are index, name, height and width of each."""

    images: tuple[tuple[int, str, int, int], ...]
    intersection: Counts  # (N, K)
    prediction: Counts  # (N, K)
    label: Counts  # (N, K)

    @property
    def union(self) -> Counts:
        """Pixels of a class in prediction or label, ``(N, K)``."""
        return self.prediction + self.label - self.intersection

    @property
    def miou(self) -> float:
        """The mIoU in percent over all images."""
        return float(mean_iou(self.intersection.sum(axis=0), self.union.sum(axis=0)))


def mean_iou(intersection: Counts | Floats, union: Counts | Floats) -> Floats:
    """Compute mIoU in percent from counts summed over images, as `evaluation.metrics.scores_of` does.

    Args:
        intersection: ``(..., K)``, whole numbers.
        union: ``(..., K)``, whole numbers.

    Returns:
        ``(...)``: the mean over the classes whose union is not 0; NaN where there is none.
    """
    present = union > 0
    with np.errstate(invalid="ignore"):
        iou = 100 * intersection.astype(np.float64) / np.where(present, union, 1)
        mean: Floats = np.where(present, iou, 0.0).sum(axis=-1) / present.sum(axis=-1)
    return mean


def read_counts(test: Test) -> ImageCounts:
    """Read the counts of every image of a test.

    Raises:
        DataError: ``images.jsonl`` is missing or damaged, or its counts do not add up to those of ``results.json``.
    """
    path = test.path.with_name(IMAGES_FILE)
    rows = test.images
    names = ("intersection", "prediction", "label")
    counts = np.zeros((len(names), len(rows), len(test.content["label"])), np.int64)
    try:
        images = tuple((row["index"], row["name"], row["height"], row["width"]) for row in rows)
        for number, row in enumerate(rows):
            counts[:, number, row["classes"]] = [row[name] for name in names]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise DataError(f"{path} is no list of images with pixel counts: {error}; run the test again") from error
    for name, part in zip(names, counts, strict=True):
        if part.sum(axis=0).tolist() != test.content[name]:
            raise DataError(
                f"{path}: the counts of {name} do not add up to those of {test.path}: the two are of different runs; "
                "run the test again"
            )
    return ImageCounts(images, *counts)
