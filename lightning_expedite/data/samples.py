"""What data sets hand out: samples for the model, and the images and labels behind them."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

IGNORE_INDEX = 255


class Size(NamedTuple):
    """Height and width in pixels; a named tuple because pinning memory turns plain tuples into lists."""

    height: int
    width: int


class View(TypedDict):
    """One scale (and mirror) of one image."""

    image: Tensor
    """``(3, h, w)`` float32, resized, mirrored where ``mirrored``, normalised."""
    mirrored: bool


class Sample(TypedDict):
    """One image with its label."""

    index: int
    """Position in the data set; -1: placeholder of a process without images, which counts nowhere."""
    name: str
    """Path of the image below its folder, without suffix, ``/``-separated; unique in the data set."""
    size: tuple[int, int]
    """Height and width of the image as stored, in pixels."""
    views: list[View]
    """Scale by scale in the order asked for; each is followed by its mirror where mirrors are wanted."""
    digest: str
    """First 16 hex digits of a SHA-256 over the image file and, where it was read, the label file; over the pixels
    where there are no files."""
    label: Tensor | None
    """``(H, W)`` uint8 at the stored size, 255 = ignored; ``None`` where there are no labels."""


class ListedImage(NamedTuple):
    """What is known of an image before it is read."""

    name: str
    """See `Sample`."""
    sizes: tuple[int, ...]
    """Bytes of the image file and, where labels are asked for, of its label file; empty where there are no files."""


class ImageSource(Protocol):
    """The images of one split: what a data set has to provide."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def name(self, index: int) -> str:
        """Return the unique name of an image, see ``Sample``."""
        ...

    def image(self, index: int) -> NDArray[np.uint8]:
        """Read an image as ``(H, W, 3)`` uint8 RGB."""
        ...

    def label(self, index: int) -> NDArray[np.uint8] | None:
        """Read a label as ``(H, W)`` uint8 class indices, 255 = ignored; ``None`` where there is none."""
        ...
