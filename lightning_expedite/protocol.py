"""What a checkpoint says about how it is to be evaluated."""

from dataclasses import dataclass
from typing import Literal

Normalization = Literal["vit", "deit"]


def usual_stride(window: int) -> int:
    """Give the official evaluation's stride where none is given; below 1 for windows too small for the rule."""
    return window - 32


@dataclass(frozen=True)
class Protocol:
    """Evaluation settings that come with a checkpoint; ``None`` where it does not say.

    Sizes are in pixels. ``normalization`` names the pixel statistics the backbone was trained with.
    """

    short_side: int | None = None
    long_side: int | None = None
    window: int | None = None
    stride: int | None = None
    normalization: Normalization = "vit"
