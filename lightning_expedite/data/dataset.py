"""From an image source to samples: the torch data set, its division among processes, its workers."""

import ctypes
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from ..protocol import Normalization
from .reading import digest_of, size_mismatch
from .samples import Contents, ImageSource, Sample, Size, View
from .transforms import import_albumentations, target_size, view_image

PLACEHOLDER = -1

_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


@dataclass(eq=False)
class SampleDataset(Dataset[Sample]):
    """Samples of a source: every image with its views and its label.

    Args:
        source: Where images and labels come from.
        resize: Short side and limit of the long side in pixels; ``None`` keeps images as stored.
        normalization: Name of the pixel statistics.
        scales: One view per factor.
        mirror: Whether each view is followed by its mirror.
        labels: Whether labels are read.
    """

    source: ImageSource
    resize: tuple[int, int] | None = None
    normalization: Normalization = "vit"
    scales: Sequence[float] = (1.0,)
    mirror: bool = False
    labels: bool = True

    def __post_init__(self) -> None:
        import_albumentations()  # before workers are forked: W&B's import hooks fail in a forked process

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.source)

    def __getitem__(self, position: int) -> Sample:
        """Read one sample; position -1 is a placeholder: the first image with index -1.

        Raises:
            DataError: If the image or its label is damaged, or their sizes differ.
        """
        at = 0 if position == PLACEHOLDER else position
        image, label, digest, warnings = read_contents(self.source, at, self.labels)
        size = Size(*image.shape[:2])
        if label is not None and label.shape != size:
            raise size_mismatch(self.source.name(at), Size(*label.shape), size)
        views: list[View] = [
            {"image": view_image(image, target, mirrored, self.normalization), "mirrored": mirrored}
            for target in (target_size(size, self.resize, scale) for scale in self.scales)
            for mirrored in ((False, True) if self.mirror else (False,))
        ]
        return {
            "index": position,
            "name": self.source.name(at),
            "size": size,
            "views": views,
            "digest": digest,
            "warnings": warnings,
            "label": None if label is None else torch.from_numpy(label),
        }


def read_contents(source: ImageSource, index: int, labels: bool) -> Contents:
    """Read an image and, if ``labels``, its label; the digest is of the pixels, unless ``source.read`` has one."""
    if (read := getattr(source, "read", None)) is not None:
        return read(index, labels)
    image = source.image(index)
    label = source.label(index) if labels else None
    pixels = (np.ascontiguousarray(array).data for array in (image, label) if array is not None)
    return Contents(image, label, digest_of(pixels))


class ShardedSampler(DistributedSampler[Any]):
    """Yields every w-th unfinished position to each of w processes, beginning with the r-th for process r.

    torch's own sampler repeats images until all shards are equal, which distorts scores. Here nothing is repeated; a
    process without any position gets one placeholder, -1, because Lightning needs a batch on every process. It is a
    ``DistributedSampler`` because Lightning replaces any other kind by one that repeats.

    Args:
        dataset: Anything with a length.
        num_replicas: Number of processes.
        rank: This process, from 0.
        finished: Positions that an interrupted run has finished; they are left out.
    """

    def __init__(
        self, dataset: Any, num_replicas: int = 1, rank: int = 0, finished: Collection[int] = frozenset()
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)
        unfinished = [position for position in range(len(dataset)) if position not in finished]
        self.positions = unfinished[rank::num_replicas] or [PLACEHOLDER]
        # Lightning and torch read this attribute; theirs is the padded length.
        self.num_samples = len(self.positions)

    def __iter__(self) -> Iterator[int]:
        """Yield this process's positions in ascending order."""
        return iter(self.positions)

    def __len__(self) -> int:
        """Return the number of positions of this process, placeholder included."""
        return len(self.positions)


def start_worker(_: int) -> None:
    """Limit a loader's process to one thread, since there are several of them, and let it end with its parent."""
    import cv2

    if sys.platform == "linux":  # PyTorch's own check for the parent waits until an image is read
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
