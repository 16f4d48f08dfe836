"""Pictures side by side."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .overlay import Image

LONGEST = 1024  # pixels of a panel's longer side
GAP = 4  # pixels between panels
_MARK = (255, 0, 0)


def strip(panels: Sequence[Image]) -> Image:
    """Put pictures of one size, RGB ``(H, W, 3)``, beside each other, shrunk to at most `LONGEST` pixels a side."""
    small = [shrink(panel) for panel in panels]
    gap = np.full((small[0].shape[0], GAP, 3), 255, np.uint8)
    parts = [part for panel in small for part in (panel, gap)]
    return np.concatenate(parts[:-1], axis=1)


def shrink(picture: Image) -> Image:
    """Shrink a picture, its proportions kept, until its longer side has at most `LONGEST` pixels."""
    import cv2

    factor = LONGEST / max(picture.shape[:2])
    if factor >= 1:
        return picture
    height, width = (max(round(side * factor), 1) for side in picture.shape[:2])
    shrunk: Image = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return shrunk


def mark(image: Image, pixels: NDArray[np.bool_]) -> Image:
    """Show an RGB image ``(H, W, 3)`` in pale grey, with the pixels of a mask ``(H, W)`` in red."""
    grey = (image.mean(axis=-1, keepdims=True) / 2 + 127.5).astype(np.uint8)
    return np.where(pixels[..., None], np.array(_MARK, np.uint8), grey)
