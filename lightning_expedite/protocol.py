"""Evaluation settings that come with a checkpoint: image sizes, windows and normalisation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from .errors import ConfigError

LONG_SIDE_FACTOR = 4
"""Limit of the long side as a multiple of the short side, where only the short side is known."""

MAX_SIZE = 1_000_000
"""Largest number of pixels, windows, layers or classes that a setting or a file may ask for."""
MAX_SCALE = 100.0

Normalization = Literal["vit", "deit"]
Positive = Annotated[int, Field(ge=1, le=MAX_SIZE)]


def official_stride(window: int) -> int:
    """Return the official evaluation's stride where none is given; below 1 where the window is too small for it."""
    return window - 32


@dataclass(frozen=True)
class Protocol:
    """Evaluation settings of a checkpoint; sizes in pixels, ``None`` where the checkpoint does not say.

    ``normalization`` names the pixel statistics that the backbone was trained with.
    """

    short_side: Positive | None = None
    long_side: Positive | None = None
    window: Positive | None = None
    stride: Positive | None = None
    normalization: Normalization = "vit"


def require_positive(**numbers: int | None) -> None:
    """Raise `ConfigError`, naming it, for a number that is given and not in 1 to `MAX_SIZE`."""
    for name, number in numbers.items():
        if number is not None and not (hasattr(number, "__index__") and 1 <= number <= MAX_SIZE):
            raise ConfigError(f"{name} is {number!r}: it must be 1 or more, at most {MAX_SIZE:,}")


def choose_windows(
    window: int | None, stride: int | None, protocol: Protocol, trained: tuple[int, int]
) -> tuple[int, int]:
    """Return window and stride in pixels: the given ones, else the protocol's, else the official default.

    ``trained`` is the height and width that the position embeddings were trained for.

    Raises:
        ConfigError: No stride is known, or it leaves gaps.
    """
    window = window or protocol.window or max(trained)
    stride = stride or protocol.stride or official_stride(window)
    if stride < 1:
        raise ConfigError(f"no stride is known for windows of {window} pixels; set one (--model.stride)")
    if stride > window:
        raise ConfigError(f"stride {stride} is above window {window}: pixels between windows would have no logits")
    return window, stride


def choose_resize(
    short: int | None, long: int | None, protocol: Protocol | None, factor: int = LONG_SIDE_FACTOR
) -> tuple[int, int] | None:
    """Return the short side and the limit of the long side in pixels: the given ones, else the protocol's.

    Where no long side is known, it is ``factor`` times the short side; where neither is, images keep their stored size
    and the result is ``None``.

    Raises:
        ConfigError: The two contradict each other.
    """
    if short is None and protocol is not None and protocol.short_side is not None:
        short = protocol.short_side
        long = long or protocol.long_side
    if short is None:
        if long is not None:
            raise ConfigError(f"long_side is {long}, but short_side is not known: set short_side as well")
        return None
    long = long or factor * short
    if long < short:
        raise ConfigError(f"long_side {long} is below short_side {short}: swap them")
    return short, long


def check_views(scales: Sequence[float], normalization: str | None) -> None:
    """Raise `ConfigError` for scales that are not positive factors, or an unknown normalisation."""
    if not scales or not all(0 < scale <= MAX_SCALE for scale in scales):
        raise ConfigError(
            f"scales is {list(scales)}: it must have at least one factor, each above 0, at most {MAX_SCALE:g}"
        )
    if normalization not in (None, "vit", "deit"):
        raise ConfigError(f"normalization is {normalization!r}: it must be 'vit' or 'deit'")
