"""Real crops to measure with: what content-adaptive reducers do depends on the picture."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DataError

MOST_CROPS = 64  # kept in memory; larger batches repeat them
_MOST_IMAGES = 512  # looked at for a crop of the wanted size


class Samples(Protocol):
    """A data set of samples, each with ``views`` whose ``image`` is ``(3, h, w)`` and normalised."""

    def __len__(self) -> int:
        """Count the samples."""
        ...

    def __getitem__(self, position: int, /) -> Mapping[str, Any]:
        """Read a sample."""
        ...


def require_content(images: Tensor) -> Tensor:
    """Give images ``(B, 3, H, W)`` back.

    Raises:
        DataError: One of them has the same value everywhere or one that is no number: speed measured with it says
            nothing of methods that look at the content.
    """
    for number, image in enumerate(images):
        if not image.isfinite().all():
            raise DataError(f"crop {number} of the benchmark's input holds values that are no finite numbers")
        if image.min() == image.max():
            raise DataError(f"crop {number} of the benchmark's input has one value everywhere: choose other images")
    return images


def central_crop(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut the middle ``size`` out of an image ``(3, h, w)``; a side that is shorter stays as it is."""
    for dim, side in zip((1, 2), size, strict=True):
        extent = min(side, image.shape[dim])
        image = image.narrow(dim, (image.shape[dim] - extent) // 2, extent)
    return image


def cover(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge an image ``(3, h, w)``, its proportions kept, until it is as large as ``size`` on both sides."""
    factor = max(size[0] / image.shape[1], size[1] / image.shape[2])
    if factor <= 1:
        return image
    enlarged = [max(round(side * factor), least) for side, least in zip(image.shape[1:], size, strict=True)]
    return F.interpolate(image[None], enlarged, mode="bilinear", antialias=False)[0]


class CropSource:
    """Central crops of a data set's first images, all of one size, read as they are needed.

    Args:
        samples: The data set; the first view of each sample is used.
        size: Height and width of a crop.
        enlarge: Whether images below the size are enlarged to it. Otherwise they are passed over; where none is
            large enough, crops are as large as the first image lets them be.

    Raises:
        DataError: There is no image with more than one value.
    """

    def __init__(self, samples: Samples, size: tuple[int, int], enlarge: bool) -> None:
        self._samples = samples
        self._wanted = size
        self._enlarge = enlarge
        self._looked_at = 0
        self._crops: list[Tensor] = []
        self.names: list[str] = []
        self.size = self._settle_size()

    def batch(self, start: int, count: int) -> Tensor:
        """Give ``count`` crops from number ``start`` on, ``(count, 3, H, W)``; they repeat where images run out."""
        self._read_until(min(start + count, MOST_CROPS))
        return torch.stack([self._crops[number % len(self._crops)] for number in range(start, start + count)])

    @property
    def count(self) -> int:
        """Number of different crops that were read."""
        return len(self._crops)

    def _settle_size(self) -> tuple[int, int]:
        """Read images until one gives a crop of the wanted size; otherwise settle for what the first gives."""
        smaller: list[tuple[str, Tensor]] = []
        for name, crop in self._usable():
            if tuple(crop.shape[1:]) == self._wanted:
                self._keep(name, crop)
                return self._wanted
            smaller.append((name, crop))
        if not smaller:
            raise DataError("no image of the data set has more than one value: there is nothing to measure with")
        height, width = smaller[0][1].shape[1:]
        for name, crop in smaller:
            if crop.shape[1:] == (height, width) and self.count < MOST_CROPS:
                self._keep(name, crop)
        return int(height), int(width)

    def _read_until(self, count: int) -> None:
        if self.count >= count:
            return
        for name, crop in self._usable():
            if crop.shape[1:] == self.size:
                self._keep(name, crop)
            if self.count >= count:
                return

    def _usable(self) -> Iterator[tuple[str, Tensor]]:
        """Give names and crops of the images that were not looked at yet and are not of one value."""
        while self._looked_at < min(len(self._samples), _MOST_IMAGES):
            sample = self._samples[self._looked_at]
            self._looked_at += 1
            image: Tensor = sample["views"][0]["image"]
            crop = central_crop(cover(image, self._wanted) if self._enlarge else image, self._wanted)
            if crop.min() != crop.max():
                yield sample["name"], crop.contiguous()

    def _keep(self, name: str, crop: Tensor) -> None:
        self.names.append(name)
        self._crops.append(crop)
