"""From a stored image to the views that the model sees: resize, mirror, normalise."""

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError
from ..protocol import Normalization

MOST_PIXELS = 1 << 28
"""Pixels of the largest image that is read or resized to: 3 GiB in float32."""

# RGB mean and deviation on the scale 0..255; DeiT's are ImageNet's, rounded to two decimals as in training.
STATISTICS: dict[Normalization, tuple[NDArray[np.float32], NDArray[np.float32]]] = {
    "vit": (np.full(3, 127.5, np.float32), np.full(3, 127.5, np.float32)),
    "deit": (
        np.array([123.68, 116.28, 103.53], np.float32),
        np.array([58.40, 57.12, 57.38], np.float32),
    ),
}


def target_size(size: tuple[int, int], resize: tuple[int, int] | None = None, scale: float = 1.0) -> tuple[int, int]:
    """Compute the height and width that an image is resized to, keeping its proportions.

    Args:
        size: Height and width of the image in pixels.
        resize: Short side and limit of the long side in pixels; ``None`` keeps the stored size.
        scale: Factor of multi-scale evaluation; both limits are multiplied by it and rounded down to pixels.

    Returns:
        Height and width, each rounded half up and at least 1.

    Raises:
        ConfigError: The result would have more than `MOST_PIXELS`.
    """
    if resize is None:
        factor = scale
    else:
        short, long = (int(side * scale) for side in resize)
        factor = min(long / max(size), short / min(size))
    height, width = (max(int(side * factor + 0.5), 1) for side in size)
    if height * width > MOST_PIXELS:
        raise ConfigError(
            f"an image of {size[1]} x {size[0]} pixels would be resized to {width} x {height}: use smaller scales, "
            "short_side or long_side"
        )
    return height, width


def normalize(image: NDArray[np.uint8], normalization: Normalization) -> NDArray[np.float32]:
    """Compute ``(x - mean) / deviation`` of an ``(H, W, 3)`` uint8 image in float32."""
    mean, deviation = STATISTICS[normalization]
    normalised: NDArray[np.float32] = (image.astype(np.float32) - mean) / deviation
    return normalised


def view_image(image: NDArray[np.uint8], size: tuple[int, int], mirror: bool, normalization: Normalization) -> Tensor:
    """Resize, mirror and normalise an ``(H, W, 3)`` uint8 RGB image to a ``(3, h, w)`` float32 tensor.

    Args:
        image: The image as stored.
        size: Height and width to resize to, bilinearly and without antialiasing like the reference implementation.
        mirror: Whether to flip it horizontally.
        normalization: Name of the pixel statistics.
    """
    pixels = _pipeline(size, mirror, normalization)(image=image)["image"]
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def import_albumentations() -> Any:
    """Import the library of the transforms, which takes long; loaders do it before they fork their workers."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or it asks the network for its newest version
    import albumentations

    return albumentations


@lru_cache(maxsize=64)
def _pipeline(size: tuple[int, int], mirror: bool, normalization: Normalization) -> Callable[..., dict[str, Any]]:
    import cv2

    albumentations = import_albumentations()
    # Looked up rather than computed: the same bits in a fraction of the time. albumentations.Normalize multiplies by a
    # reciprocal, which rounds otherwise.
    values = np.arange(256, dtype=np.uint8).reshape(256, 1, 1)
    table = normalize(np.broadcast_to(values, (256, 1, 3)), normalization)

    def look_up(pixels: NDArray[np.uint8], **_: Any) -> NDArray[np.float32]:
        normalised: NDArray[np.float32] = cv2.LUT(pixels, table)
        return normalised

    pipeline: Callable[..., dict[str, Any]] = albumentations.Compose(
        [
            albumentations.Resize(*size, interpolation=cv2.INTER_LINEAR),
            albumentations.HorizontalFlip(p=float(mirror)),
            albumentations.Lambda(name="normalize", image=look_up),
        ]
    )
    return pipeline
