"""What data sets yield: samples for the model, and the images and labels behind them."""

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
    """``(3, h, w)`` float32, resized, mirrored if ``mirrored``, normalised."""
    mirrored: bool


class Sample(TypedDict):
    """One image with its label."""

    index: int
    """Position in the data set; -1: placeholder of a process without images, which is never counted."""
    name: str
    """Path of the image below its folder, without suffix, ``/``-separated; unique in the data set. Bytes of a file
    name that are not UTF-8 are written as escapes, ``stra\\xdfe``."""
    size: tuple[int, int]
    """Height and width of the image as stored (upright), in pixels."""
    views: list[View]
    """Scale by scale in the requested order; each is followed by its mirror if mirrors are requested."""
    digest: str
    """First 16 hex digits of a SHA-256 over the image file and, if it was read, the label file; over the pixels
    where there are no files."""
    warnings: tuple[str, ...]
    """What is suspicious about the image or the data set."""
    label: Tensor | None
    """``(H, W)`` uint8 at the stored size, 255 = ignored; ``None`` without labels."""


class ListedImage(NamedTuple):
    """What is known of an image before it is read."""

    name: str
    """See `Sample`."""
    sizes: tuple[int, ...]
    """Bytes of the image file and, if labels are asked for, of its label file; empty where there are no files."""


class Contents(NamedTuple):
    """An image as stored, see `Sample`."""

    image: NDArray[np.uint8]
    """``(H, W, 3)`` uint8 RGB."""
    label: NDArray[np.uint8] | None
    """``(H, W)`` uint8 class indices."""
    digest: str
    warnings: tuple[str, ...] = ()


class ImageSource(Protocol):
    """The images of one split: what a data set has to provide."""

    def __len__(self) -> int:
        """Return the number of images."""

    def name(self, index: int) -> str:
        """Return the unique name of an image, see ``Sample``."""

    def image(self, index: int) -> NDArray[np.uint8]:
        """Read an image as ``(H, W, 3)`` uint8 RGB."""

    def label(self, index: int) -> NDArray[np.uint8] | None:
        """Read a label as ``(H, W)`` uint8 class indices, 255 = ignored; ``None`` if there is none."""
