"""Label maps and images as arrays, without figures."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

Image = NDArray[np.uint8]

LONGEST = 1024  # pixels of a panel's longer side
GAP = 4  # pixels between panels
_MARK = (255, 0, 0)


def colour_labels(labels: NDArray[np.integer], palette: Sequence[tuple[int, int, int]]) -> Image:
    """Colour class indices ``(H, W)`` by a palette: RGB ``(H, W, 3)``; indices beyond it stay black."""
    colours = np.zeros((max(len(palette), int(labels.max()) + 1), 3), np.uint8)
    colours[: len(palette)] = palette
    coloured: Image = colours[labels]
    return coloured


def blend(image: Image, coloured: Image, opacity: float = 0.5) -> Image:
    """Lay one RGB image ``(H, W, 3)`` over another."""
    return ((1 - opacity) * image + opacity * coloured + 0.5).astype(np.uint8)


def overlay_labels(image: Image, labels: NDArray[np.integer], palette: Sequence[tuple[int, int, int]]) -> Image:
    """Lay coloured labels ``(H, W)`` over an RGB image ``(H, W, 3)``."""
    return blend(image, colour_labels(labels, palette))


def strip(panels: Sequence[Image]) -> Image:
    """Put pictures of one size, RGB ``(H, W, 3)``, beside each other, shrunk to at most `LONGEST` pixels a side."""
    parts: list[Image] = []
    for panel in panels:
        small = PillowImage.fromarray(panel)
        small.thumbnail((LONGEST, LONGEST), PillowImage.Resampling.BOX)
        parts += [np.asarray(small), np.full((small.height, GAP, 3), 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


def mark(image: Image, pixels: NDArray[np.bool_]) -> Image:
    """Show an RGB image ``(H, W, 3)`` in pale grey, with the pixels of a mask ``(H, W)`` in red."""
    grey = (image.mean(axis=-1, keepdims=True) / 2 + 127.5).astype(np.uint8)
    return np.where(pixels[..., None], np.array(_MARK, np.uint8), grey)
