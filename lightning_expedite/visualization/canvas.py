"""Panels, legends and file contents that all figures share."""

import io
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ..data.palettes import Palette, generated_palette
from ..errors import DataError
from .arrays import Image, colour_labels

Labels = NDArray[np.integer]

IGNORE_INDEX = 255
_WIDEST, _TALLEST = 3.4, 3.8  # inches of a panel
_STRIPES = 40  # across the longer side of an image that is ignored altogether
_FEW_PIXELS = 1000  # along a side; larger images are smoothed when they are scaled down


def panel_size(height: int, width: int) -> tuple[float, float]:
    """Return width and height in inches of the panel for an image of a size in pixels."""
    scale = min(_WIDEST / width, _TALLEST / height)
    return scale * width, scale * height


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure; sizes in inches."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")


def show(axes: Axes, pixels: Image, title: str, caption: str = "") -> None:
    """Show an image ``(H, W, 3)`` with a title above and a caption below."""
    axes.imshow(pixels, interpolation="nearest" if max(pixels.shape) <= _FEW_PIXELS else "antialiased")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(caption, fontsize=9)
    remove_frame(axes)


def remove_frame(axes: Axes) -> None:
    """Remove ticks and frame."""
    axes.set(xticks=[], yticks=[], frame_on=False)


def figure_bytes(figure: Figure, kind: Literal["png", "svg"] = "png") -> bytes:
    """Return a figure as the content of a PNG or SVG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format=kind)
    return stream.getvalue()


def palette_for(maps: Iterable[Labels], palette: Palette | None) -> Palette:
    """Return the palette, or by default generated colours for all classes that occur.

    Raises:
        DataError: The palette has no colour for one of the classes.
    """
    largest = max(int(labels[labels != IGNORE_INDEX].max(initial=0)) for labels in maps)
    if palette is None:
        return generated_palette(largest + 1)
    if largest >= len(palette):
        raise DataError(f"class {largest} has no colour: the palette has {len(palette)}; it needs one for every class")
    return palette


def paint(labels: Labels, palette: Palette) -> Image:
    """Colour labels ``(H, W)``; ignored pixels get grey stripes."""
    ignored = (labels == IGNORE_INDEX) & (len(palette) <= IGNORE_INDEX)
    colours = colour_labels(np.where(ignored, 0, labels), palette)
    width = max(max(labels.shape) // (2 * _STRIPES), 1)
    diagonals = np.add.outer(*map(np.arange, labels.shape)) // width
    colours[ignored] = np.where(diagonals[ignored] % 2 == 0, 255, 150)[:, None]
    return colours


def class_handles(maps: Sequence[Labels], classes: Sequence[str] | None, palette: Palette) -> list[Patch]:
    """Return legend entries for all classes that occur in label maps, and for ignored pixels."""
    handles = []
    for index in sorted({int(index) for labels in maps for index in np.unique(labels)}):
        if index < len(palette):
            name = classes[index] if classes is not None else f"class {index}"
            handles.append(Patch(facecolor=hex_colour(palette[index]), edgecolor="black", linewidth=0.5, label=name))
        else:
            handles.append(Patch(facecolor="white", edgecolor="0.5", hatch="/////", label="ignored"))
    return handles


def hex_colour(colour: tuple[int, int, int]) -> str:
    """Return an RGB colour of 0 to 255 in matplotlib's notation."""
    return f"#{bytes(colour).hex()}"


def require_shape(image: Image, **maps: Labels | None) -> None:
    """Raise `DataError` if a label map differs from its image in size."""
    for name, labels in maps.items():
        if labels is not None and labels.shape != image.shape[:2]:
            raise DataError(f"{name} is a map of {labels.shape}, its image is {image.shape[:2]}: sizes must agree")
