"""Which patches share a token, drawn over the image."""

import math
from collections.abc import Sequence
from textwrap import fill
from typing import Literal, Unpack

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..data.reading import rgb_pixels
from ..evaluation.one_image import AnyImage, Preparation, Settings
from ..evaluation.token_maps import TokenMap, TokenMaps, token_maps
from ..models.segmenter.model import Segmenter
from ..reducers.grouping import DROPPED
from .canvas import Image, bare, new_figure, panel_size, show

Style = Literal["both", "mean", "borders"]
"""Whether patches that share a token are filled with their mean colour, framed, or both."""

_MOST_COLUMNS = 3
_DROPPED_WHITE = 0.82  # share of white over dropped patches
_LINE, _WINDOW_LINE, _RIM = 0.45, 1.6, 0.6  # points
_LETTERS, _LINE_HEIGHT = 15, 0.17  # of the text above and below: letters to an inch, inches of a line
_SHARED_KEYS = {
    "both": "Patches that share a token have their mean colour and a frame.",
    "mean": "Patches that share a token have their mean colour.",
    "borders": "Patches that share a token have a frame.",
}
_DROPPED_KEY = "White patches are dropped."
_ALONE_KEY = "The others show the image: each has a token of its own."


def token_groups(
    model: Segmenter,
    image: AnyImage,
    *,
    layers: Sequence[int] | None = None,
    head: int = 1,
    style: Style = "both",
    **settings: Unpack[Settings],
) -> Figure:
    """Run a model on an image and draw which patches share a token.

    Args:
        model: With a reducer.
        image: A file, a Pillow image or an ``(H, W, 3)`` uint8 RGB array.
        layers: Layers, from 1; by default up to five in which something happens.
        head: Head, from 1, where each groups for itself (ACT).
        style: ``mean`` fills groups with their mean colour, ``borders`` draws lines between them, ``both`` does both.
        **settings: Size, windows and normalisation, as of `lightning_expedite.segment`; the first scale is used.

    Raises:
        ConfigError: A setting is out of its range, or nothing was reduced.
        ReducerError: The reducer does not tell its groups.
        DataError: The image cannot be read.
    """
    pixels, preparation = rgb_pixels(image), Preparation.of(model, settings)
    view, _ = preparation.views(pixels, next(model.parameters()))[0]
    maps = token_maps(model, view, preparation.windows, layers, head)
    return draw_token_maps(pixels, maps, style, str(model.reducer))


def draw_token_maps(image: Image, maps: TokenMaps, style: Style = "both", title: str = "") -> Figure:
    """Draw an image and the groups of some steps over it.

    Args:
        image: ``(H, W, 3)`` uint8 RGB; resized to what the model saw.
        maps: The groups.
        style: See `token_groups`.
        title: Stands above the figure.
    """
    height, width = maps.size
    pixels: Image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    count = 1 + len(maps.steps)
    columns = min(math.ceil(math.sqrt(count)), _MOST_COLUMNS) if count > 3 else count
    rows = -(-count // columns)
    wide, high = panel_size(height, width)
    across = columns * (wide + 0.1)
    above, below = (fill(text, round(_LETTERS * across)) for text in (title, _key(maps, style)))
    lines = above.count("\n") + below.count("\n")
    figure = new_figure(across, rows * (high + 0.45) + 0.5 + _LINE_HEIGHT * lines)
    axes: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    show(axes[0], pixels, "image\n")
    for panel, step in zip(axes[1:], maps.steps, strict=False):
        draw_step(panel, pixels, maps, step, style)
    for panel in axes[count:]:
        bare(panel)
    figure.suptitle(above, fontsize=10)
    figure.supxlabel(below, fontsize=9)
    return figure


def _key(maps: TokenMaps, style: Style) -> str:
    """Say what the patches of some steps look like."""
    dropped = any((step.group == DROPPED).any() for step in maps.steps)
    alone = any(step.alone.any() for step in maps.steps)
    shared = any(((step.group != DROPPED) & ~step.alone).any() for step in maps.steps)
    keys = ((shared, _SHARED_KEYS[style]), (dropped, _DROPPED_KEY), (alone, _ALONE_KEY))
    return " ".join(key for occurs, key in keys if occurs)


def draw_step(axes: Axes, pixels: Image, maps: TokenMaps, step: TokenMap, style: Style = "both") -> None:
    """Draw the groups of one step over an image ``(H, W, 3)``, with thick lines between windows."""
    show(axes, pixels if style == "borders" else fill_groups(pixels, step), step.title)
    if style != "mean":
        _draw_lines(axes, borders(step.group, step.alone), _LINE)
    _draw_lines(axes, borders(maps.window), _WINDOW_LINE)


def fill_groups(pixels: Image, step: TokenMap) -> Image:
    """Fill patches that share a token with their mean colour and whiten dropped ones; the others stay as they are."""
    picture = pixels.copy()
    dropped = step.group == DROPPED
    shared = ~dropped & ~step.alone
    numbers = step.group[shared]
    members = np.bincount(numbers).clip(1)
    for channel in range(3):
        means = np.bincount(numbers, weights=pixels[..., channel][shared]) / members
        picture[..., channel][shared] = (means + 0.5).astype(np.uint8)[numbers]
    picture[dropped] = ((1 - _DROPPED_WHITE) * pixels[dropped] + _DROPPED_WHITE * 255).astype(np.uint8)
    return picture


def borders(group: NDArray[np.int64], alone: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Find the lines between pixels of different groups.

    Args:
        group: ``(H, W)``.
        alone: ``(H, W)``; between two pixels that are both alone there is no line.

    Returns:
        Lines ``(n, 2, 2)``: both ends, each with x and y as `matplotlib.axes.Axes.imshow` counts them.
    """
    between_rows = _runs(group, alone)[:, :, ::-1]
    between_columns = _runs(group.T, None if alone is None else alone.T)
    return np.concatenate((between_rows, between_columns)) - 0.5


def _runs(group: NDArray[np.int64], alone: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Find straight lines between a row and the next: both ends, each with its row and its column."""
    edges = group[1:] != group[:-1]
    if alone is not None:
        edges &= ~(alone[1:] & alone[:-1])
    change = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, stops = np.argwhere(change == 1), np.argwhere(change == -1)
    lines = np.stack((starts, stops), axis=1).astype(np.float64)
    lines[..., 0] += 1
    return lines


def _draw_lines(axes: Axes, lines: NDArray[np.float64], width: float) -> None:
    """Draw light lines with a dark rim: they are seen over any colour."""
    for colour, extra in (("black", _RIM), ("white", 0.0)):
        axes.add_collection(LineCollection(list(lines), colors=colour, linewidths=width + extra, capstyle="projecting"))
