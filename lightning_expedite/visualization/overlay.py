"""Label maps as pictures."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def colour_labels(labels: NDArray[np.integer], palette: Sequence[tuple[int, int, int]]) -> Image:
    """Colour class indices ``(H, W)`` by a palette: RGB ``(H, W, 3)``; indices beyond it stay black."""
    colours = np.zeros((max(len(palette), int(labels.max()) + 1), 3), np.uint8)
    colours[: len(palette)] = palette
    coloured: Image = colours[labels]
    return coloured


def overlay_labels(
    image: Image, labels: NDArray[np.integer], palette: Sequence[tuple[int, int, int]], opacity: float = 0.5
) -> Image:
    """Lay coloured labels ``(H, W)`` over an RGB image ``(H, W, 3)``."""
    mixed = (1 - opacity) * image + opacity * colour_labels(labels, palette)
    return (mixed + 0.5).astype(np.uint8)
