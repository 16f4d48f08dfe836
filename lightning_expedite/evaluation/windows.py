"""Placement of sliding windows in the two conventions of Segmenter's code bases."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..errors import ConfigError
from ..models.segmenter.architecture import ConventionName


def mmseg_starts(side: int, window: int, stride: int) -> list[int]:
    """Return starts along one side as in mmsegmentation: windows beyond the border are shifted back."""
    count = max(side - window + stride - 1, 0) // stride + 1
    return [max(min(index * stride + window, side) - window, 0) for index in range(count)]


def official_starts(side: int, window: int, stride: int) -> list[int]:
    """Return starts along one side as in rstrudel/segmenter: one more window ends flush with the border."""
    return [*range(0, side - window, stride), max(side - window, 0)]


MOST_PIXELS = 1 << 28  # 3 GiB in float32

STARTS = {"mmseg": mmseg_starts, "official": official_starts}


@dataclass(frozen=True)
class WindowPlan:
    """Windows of one image: all of one size, at the product of row and column starts, row by row."""

    image: tuple[int, int]  # height, width that the windows tile
    window: tuple[int, int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def origins(self) -> list[tuple[int, int]]:
        """Top left corners."""
        return [(row, column) for row in self.rows for column in self.columns]


@lru_cache(maxsize=256)
def count_windows(plan: WindowPlan, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Count the windows over each row ``(H,)`` and column ``(W,)``; the product is the number over a pixel.

    Returns ``None`` if one window covers every pixel.
    """
    sides = zip((plan.rows, plan.columns), plan.window, plan.image, strict=True)
    with torch.inference_mode(False):  # else a later caller could not differentiate through what is kept
        rows, columns = (_cover_side(starts, window, side) for starts, window, side in sides)
        if int(rows.max()) == int(columns.max()) == 1:
            return None
        return rows.to(device, non_blocking=True), columns.to(device, non_blocking=True)


def _cover_side(starts: Sequence[int], window: int, side: int) -> Tensor:
    position = torch.arange(side)
    return torch.stack([(position >= start) & (position < start + window) for start in starts]).sum(0)


def plan_windows(image: tuple[int, int], window: int, stride: int, placement: ConventionName) -> WindowPlan:
    """Place windows over an image.

    Args:
        image: Height and width in pixels.
        window: Side of a window in pixels; cut to the image where that is smaller.
        stride: Distance of windows in pixels.
        placement: Convention to follow.

    Raises:
        ConfigError: The stride leaves gaps or is not positive.
    """
    if not 0 < stride <= window:
        raise ConfigError(f"stride {stride} must lie between 1 and the window of {window} pixels")
    height, width = image
    starts = STARTS[placement]
    return WindowPlan(
        image,
        (min(window, height), min(window, width)),
        tuple(starts(height, window, stride)),
        tuple(starts(width, window, stride)),
    )


def size_for_windows(image: tuple[int, int], window: int, placement: ConventionName) -> tuple[int, int]:
    """Return the size an image is resized to before windows are placed: the official code enlarges small images.

    Raises:
        ConfigError: The result would have more than `MOST_PIXELS`.
    """
    height, width = image
    if placement == "mmseg" or min(height, width) >= window:
        return image
    size = (window, int(width / height * window)) if height < width else (int(height / width * window), window)
    if size[0] * size[1] > MOST_PIXELS:
        raise ConfigError(
            f"an image of {width} x {height} pixels would be enlarged to {size[1]} x {size[0]} for windows of {window}"
            ": use a smaller window, or leave the image out"
        )
    return size
