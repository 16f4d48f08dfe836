"""What a checkpoint says about how it is to be evaluated."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .errors import ConfigError

LONG_SIDE_FACTOR = 4
"""The long side's limit, in short sides, where only the short side is known."""

MOST = 1_000_000
"""The largest number of pixels or windows that a setting may ask for."""
MOST_SCALE = 100.0

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


def require_positive(**numbers: int | None) -> None:
    """Raise `ConfigError`, naming it, for a number that is given and below 1, or beyond every use."""
    for name, number in numbers.items():
        if number is not None and not 1 <= number <= MOST:
            raise ConfigError(f"{name} is {number}: it must be 1 or more, at most {MOST:,}")


def choose_windows(
    window: int | None, stride: int | None, protocol: Protocol, trained: tuple[int, int]
) -> tuple[int, int]:
    """Choose window and stride in pixels: those that are given, else the protocol's, else the usual ones.

    Args:
        window: Side of a window, or ``None``.
        stride: Distance of windows, or ``None``.
        protocol: What the weights say.
        trained: Height and width that the position embeddings were trained for.

    Raises:
        ConfigError: No stride is known, or it leaves gaps.
    """
    window = window or protocol.window or max(trained)
    stride = stride or protocol.stride or usual_stride(window)
    if stride < 1:
        raise ConfigError(f"no stride is known for windows of {window} pixels; give a stride (--model.stride)")
    if stride > window:
        raise ConfigError(f"stride {stride} is above window {window}: parts of the image would have no logits")
    return window, stride


def choose_resize(
    short: int | None, long: int | None, protocol: Protocol | None, factor: int = LONG_SIDE_FACTOR
) -> tuple[int, int] | None:
    """Choose the short side and the long side's limit in pixels: those that are given, else the protocol's.

    Args:
        short: Length that the short side is resized to, or ``None``.
        long: Most pixels of the long side after that, or ``None``.
        protocol: What the weights say, where it is to be followed.
        factor: The long side's limit in short sides, where none is known.

    Returns:
        Both, or ``None`` where images are left as stored.

    Raises:
        ConfigError: The two contradict each other.
    """
    if short is None and protocol is not None and protocol.short_side is not None:
        short = protocol.short_side
        long = long or protocol.long_side
    if short is None:
        if long is not None:
            raise ConfigError(f"long_side is {long}, but short_side is not known: give short_side as well")
        return None
    long = long or factor * short
    if long < short:
        raise ConfigError(f"long_side {long} is below short_side {short}: swap them")
    return short, long


def check_views(scales: Sequence[float], normalization: str | None) -> None:
    """Raise `ConfigError` for factors that are no sizes, or for pixel statistics of an unknown name."""
    if not scales or not all(0 < scale <= MOST_SCALE for scale in scales):
        raise ConfigError(f"scales is {list(scales)}: give at least one factor, each above 0, at most {MOST_SCALE:g}")
    if normalization not in (None, "vit", "deit"):
        raise ConfigError(f"normalization is {normalization!r}: it must be 'vit' or 'deit'")
