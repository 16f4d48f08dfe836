"""The torch data set that turns an image source into samples."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from lightning_expedite.data.reading import digest_of, size_mismatch
from lightning_expedite.data.sampler import PLACEHOLDER
from lightning_expedite.data.samples import ImageSource, Sample, Size, View
from lightning_expedite.data.transforms import import_albumentations, target_size, view_image
from lightning_expedite.protocol import Normalization

_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


class SampleDataset(Dataset[Sample]):
    """Samples of a source: every image with its views and its label.

    Args:
        source: Where images and labels come from.
        resize: Short side and the long side's limit in pixels; ``None`` leaves images as stored.
        normalization: Name of the pixel statistics.
        scales: One view per factor.
        mirror: Whether each view is followed by its mirror.
        labels: Whether labels are read.
    """

    def __init__(
        self,
        source: ImageSource,
        resize: tuple[int, int] | None = None,
        normalization: Normalization = "vit",
        scales: Sequence[float] = (1.0,),
        mirror: bool = False,
        labels: bool = True,
    ) -> None:
        self.source = source
        self.resize = resize
        self.normalization: Normalization = normalization
        self.scales = tuple(scales)
        self.mirror = mirror
        self.labels = labels
        import_albumentations()  # W&B watches imports, and fails at one in a forked process

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.source)

    def __getitem__(self, position: int) -> Sample:
        """Read one sample; position -1 gives the first one as a placeholder, with index -1.

        Raises:
            DataError: If the image or its label is damaged, or their sizes differ.
        """
        at = 0 if position == PLACEHOLDER else position
        image, label, digest = read_source(self.source, at, self.labels)
        size = Size(*image.shape[:2])
        if label is not None and label.shape != size:
            raise size_mismatch(self.source.name(at), Size(*label.shape), size)
        views: list[View] = [
            {
                "image": view_image(image, target_size(size, self.resize, scale), mirrored, self.normalization),
                "mirrored": mirrored,
            }
            for scale in self.scales
            for mirrored in ((False, True) if self.mirror else (False,))
        ]
        return {
            "index": position,
            "name": self.source.name(at),
            "size": size,
            "views": views,
            "digest": digest,
            "label": None if label is None else torch.from_numpy(label),
        }


def read_source(
    source: ImageSource, index: int, labels: bool
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None, str]:
    """Read an image, its label if ``labels``, and their digest, see `Sample`.

    A source with files has a method ``read(index, labels)`` that returns all three; of any other, the pixels count.
    """
    if (read := getattr(source, "read", None)) is not None:
        return read(index, labels)
    image = source.image(index)
    label = source.label(index) if labels else None
    return image, label, digest_of(np.ascontiguousarray(part).data for part in (image, label) if part is not None)


def keep_list(samples: list[Sample]) -> list[Sample]:
    """Return a batch as it is: its images differ in size and cannot be stacked."""
    return samples


def quiet_worker(_: int) -> None:
    """Keep a loader's process to one thread, since there are several of them, and let it end with its parent."""
    import cv2

    die_with_parent()

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def die_with_parent() -> None:
    """Let Linux kill this process when its parent ends: PyTorch's own check waits for the end of an image's reading."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
