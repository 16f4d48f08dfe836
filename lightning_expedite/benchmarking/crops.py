"""Real crops to measure with: what content-adaptive reducers do depends on the image."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DataError

if TYPE_CHECKING:
    from ..data.dataset import SampleDataset

MOST_CROPS = 64  # kept in memory; larger batches repeat them
_MOST_IMAGES = 512  # searched for a crop of the requested size


def central_crop(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the central crop of an image ``(3, h, w)``; a side that is shorter than ``size`` stays as it is."""
    for dim, side in zip((1, 2), size, strict=True):
        extent = min(side, image.shape[dim])
        image = image.narrow(dim, (image.shape[dim] - extent) // 2, extent)
    return image


def cover(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge an image ``(3, h, w)``, keeping its aspect ratio, until both sides reach ``size``."""
    factor = max(size[0] / image.shape[1], size[1] / image.shape[2])
    if factor <= 1:
        return image
    enlarged = [max(round(side * factor), least) for side, least in zip(image.shape[1:], size, strict=True)]
    return F.interpolate(image[None], enlarged, mode="bilinear", antialias=False)[0]


class CropSource:
    """Central crops of a data set's first images, all of one size, read when they are needed.

    Args:
        samples: The data set; the first view of each sample is used.
        size: Height and width of a crop.
        enlarge: Whether smaller images are enlarged to the size. Otherwise they are skipped, unless no image is large
            enough: then crops are as large as the first image allows.

    Attributes:
        size: Height and width of the crops.

    Raises:
        DataError: All images are constant.
    """

    def __init__(self, samples: "SampleDataset", size: tuple[int, int], enlarge: bool) -> None:
        self._unread = _usable_crops(samples, size, enlarge)
        crops = []
        for crop in self._unread:
            crops.append(crop)
            if crop.shape[1:] == size:
                break
        if not crops:
            raise DataError("all images of the data set are constant: there is nothing to measure with")
        reference = crops[-1] if crops[-1].shape[1:] == size else crops[0]
        self.size = (int(reference.shape[1]), int(reference.shape[2]))
        self._crops = [crop for crop in crops if crop.shape == reference.shape][:MOST_CROPS]

    def batch(self, start: int, count: int) -> Tensor:
        """Return ``count`` crops from number ``start`` on, ``(count, 3, H, W)``; few images are repeated."""
        while self.count < min(start + count, MOST_CROPS):
            crop = next(self._unread, None)
            if crop is None:
                break
            if crop.shape[1:] == self.size:
                self._crops.append(crop)
        return torch.stack([self._crops[number % len(self._crops)] for number in range(start, start + count)])

    @property
    def count(self) -> int:
        """Number of different crops read so far."""
        return len(self._crops)


def _usable_crops(samples: "SampleDataset", size: tuple[int, int], enlarge: bool) -> Iterator[Tensor]:
    for position in range(min(len(samples), _MOST_IMAGES)):
        image: Tensor = samples[position]["views"][0]["image"]
        crop = central_crop(cover(image, size) if enlarge else image, size)
        if crop.min() != crop.max():
            yield crop.contiguous()
