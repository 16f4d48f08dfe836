"""Patches that share a token, drawn over the image."""

import math
from dataclasses import dataclass
from textwrap import fill
from typing import Literal

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..reducers.grouping import DROPPED
from .arrays import Image
from .canvas import new_figure, panel_size, remove_frame, show

Style = Literal["both", "mean", "borders"]
"""Fill patches that share a token with their mean colour, outline them, or both."""

_MOST_COLUMNS = 3
_DROPPED_WHITE = 0.82  # weight of white over dropped patches
_LINE, _WINDOW_LINE, _RIM = 0.45, 1.6, 0.6  # points
_LETTERS, _LINE_HEIGHT = 15, 0.17  # of title and key: letters per inch, inches per line
_MERGED_KEYS = {
    "both": "Outlined patches share a token and have their mean colour.",
    "mean": "Patches that share a token have their mean colour.",
    "borders": "Outlined patches share a token.",
}
_DROPPED_KEY = "White patches are dropped."
_ALONE_KEY = "The others show the image: each has its own token."


@dataclass(frozen=True)
class TokenMap:
    """The groups of one step of a reducer, over an image.

    Pixels with the same number in ``group`` belong to patches that share a token, across all windows; `DROPPED` ones to
    patches that have none.
    """

    title: str  # layer, module and number of tokens, in two lines
    group: NDArray[np.int64]  # (H, W)
    alone: NDArray[np.bool_]  # (H, W): whether the pixel's patch has its own token


@dataclass(frozen=True)
class TokenMaps:
    """The groups of some layers, over an image, and the window that each pixel is shown from."""

    window: NDArray[np.int64]  # (H, W)
    steps: list[TokenMap]


def draw_token_maps(image: Image, maps: TokenMaps, style: Style = "both", title: str = "") -> Figure:
    """Draw an image and, over it, the groups of each step.

    Args:
        image: ``(H, W, 3)`` uint8 RGB; resized to what the model saw.
        maps: The groups, as `lightning_expedite.evaluation.token_maps.token_maps` returns them.
        style: ``mean`` fills groups with their mean colour, ``borders`` outlines them, ``both`` does both.
        title: Title of the figure.
    """
    height, width = maps.window.shape
    pixels: Image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    panels = 1 + len(maps.steps)
    columns = min(math.ceil(math.sqrt(panels)), _MOST_COLUMNS) if panels > 3 else panels
    rows = -(-panels // columns)
    panel_width, panel_height = panel_size(height, width)
    figure_width = columns * (panel_width + 0.1)
    heading, key = (fill(text, round(_LETTERS * figure_width)) for text in (title, _key(maps, style)))
    lines = heading.count("\n") + key.count("\n")
    figure = new_figure(figure_width, rows * (panel_height + 0.45) + 0.5 + _LINE_HEIGHT * lines)
    axes: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    show(axes[0], pixels, "image\n")
    for panel, step in zip(axes[1:], maps.steps, strict=False):
        draw_step(panel, pixels, maps, step, style)
    for panel in axes[panels:]:
        remove_frame(panel)
    figure.suptitle(heading, fontsize=10)
    figure.supxlabel(key, fontsize=9)
    return figure


def _key(maps: TokenMaps, style: Style) -> str:
    dropped = any((step.group == DROPPED).any() for step in maps.steps)
    alone = any(step.alone.any() for step in maps.steps)
    merged = any(((step.group != DROPPED) & ~step.alone).any() for step in maps.steps)
    keys = ((merged, _MERGED_KEYS[style]), (dropped, _DROPPED_KEY), (alone, _ALONE_KEY))
    return " ".join(key for occurs, key in keys if occurs)


def draw_step(axes: Axes, pixels: Image, maps: TokenMaps, step: TokenMap, style: Style = "both") -> None:
    """Draw the groups of one step over an image ``(H, W, 3)``, with thick lines between windows."""
    show(axes, pixels if style == "borders" else fill_groups(pixels, step), step.title)
    if style != "mean":
        _draw_lines(axes, borders(step.group, step.alone), _LINE)
    _draw_lines(axes, borders(maps.window), _WINDOW_LINE)


def fill_groups(pixels: Image, step: TokenMap) -> Image:
    """Fill patches that share a token with their mean colour and whiten dropped ones; leave the others as they are."""
    filled = pixels.copy()
    dropped = step.group == DROPPED
    merged = ~dropped & ~step.alone
    numbers = step.group[merged]
    sums = np.stack([np.bincount(numbers, channel[merged]) for channel in np.moveaxis(pixels, 2, 0)], axis=1)
    filled[merged] = (sums / np.bincount(numbers).clip(1)[:, None] + 0.5).astype(np.uint8)[numbers]
    filled[dropped] = ((1 - _DROPPED_WHITE) * pixels[dropped] + _DROPPED_WHITE * 255).astype(np.uint8)
    return filled


def borders(group: NDArray[np.int64], alone: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Return the lines ``(n, 2, 2)`` between pixels ``(H, W)`` of different groups, except between two that are alone.

    A line is the x and y of both ends, in the coordinates of `matplotlib.axes.Axes.imshow`.
    """
    between_rows = _row_borders(group, alone)[:, :, ::-1]
    between_columns = _row_borders(group.T, None if alone is None else alone.T)
    return np.concatenate((between_rows, between_columns)) - 0.5


def _row_borders(group: NDArray[np.int64], alone: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Return the straight lines between consecutive rows: the row and column of both ends."""
    edges = group[1:] != group[:-1]
    if alone is not None:
        edges &= ~(alone[1:] & alone[:-1])
    change = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, stops = np.argwhere(change == 1), np.argwhere(change == -1)
    return np.stack((starts, stops), axis=1) + np.array([1.0, 0.0])


def _draw_lines(axes: Axes, lines: NDArray[np.float64], width: float) -> None:
    """Draw light lines with a dark rim, which are visible over any colour."""
    for colour, extra in (("black", _RIM), ("white", 0.0)):
        axes.add_collection(LineCollection(list(lines), colors=colour, linewidths=width + extra, capstyle="projecting"))
