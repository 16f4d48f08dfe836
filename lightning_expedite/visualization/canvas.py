"""What all figures share: panels, legends and the content of files."""

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
from .overlay import colour_labels

Image = NDArray[np.uint8]
Labels = NDArray[np.integer]

DOTS_PER_INCH = 150
IGNORE_INDEX = 255
_WIDEST, _TALLEST = 3.4, 3.8  # inches of a panel
_STRIPES = 40  # that an ignored image would have along its longer side
_FEW_PIXELS = 1000  # along a side; larger pictures are smoothed as they are made smaller


def panel_size(height: int, width: int) -> tuple[float, float]:
    """Give width and height in inches of the panel that shows an image of so many pixels."""
    scale = min(_WIDEST / width, _TALLEST / height)
    return scale * width, scale * height


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure; sizes in inches."""
    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")


def show(axes: Axes, pixels: Image, title: str, below: str = "") -> None:
    """Show a picture ``(H, W, 3)`` with a title above and, if there is something to say, a line below."""
    interpolation = "nearest" if max(pixels.shape) <= _FEW_PIXELS else "antialiased"
    axes.imshow(pixels, interpolation=interpolation)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(below, fontsize=9)
    bare(axes)


def bare(axes: Axes) -> None:
    """Take ticks and frame away."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def figure_bytes(figure: Figure, kind: Literal["png", "svg"] = "png") -> bytes:
    """Give the content of a PNG or SVG file of a figure."""
    stream = io.BytesIO()
    figure.savefig(stream, format=kind)
    return stream.getvalue()


def colours_for(maps: Iterable[Labels], palette: Palette | None) -> Palette:
    """Give a palette, or generated colours for all classes that occur.

    Raises:
        DataError: The palette has no colour for one of them.
    """
    most = max(int(labels[labels != IGNORE_INDEX].max(initial=0)) for labels in maps)
    if palette is None:
        return generated_palette(most + 1)
    if most >= len(palette):
        raise DataError(f"class {most} has no colour: the palette has {len(palette)}; give one for every class")
    return palette


def paint(labels: Labels, palette: Palette) -> Image:
    """Colour labels ``(H, W)``; ignored pixels get grey stripes."""
    ignored = labels == IGNORE_INDEX if len(palette) <= IGNORE_INDEX else np.zeros(labels.shape, bool)
    picture = colour_labels(np.where(ignored, 0, labels), palette)
    width = max(max(labels.shape) // (2 * _STRIPES), 1)
    diagonals = np.add.outer(np.arange(labels.shape[0]), np.arange(labels.shape[1]))
    stripes = diagonals // width % 2 == 0
    picture[ignored & stripes] = 255
    picture[ignored & ~stripes] = 150
    return picture


def class_handles(maps: Sequence[Labels], classes: Sequence[str] | None, palette: Palette) -> list[Patch]:
    """Make the legend's entries of all classes that occur in label maps, and of ignored pixels."""
    present = sorted({int(number) for labels in maps for number in np.unique(labels)})
    handles = []
    for number in present:
        if number >= len(palette):
            handles.append(Patch(facecolor="white", edgecolor="0.5", hatch="/////", label="ignored"))
            continue
        name = classes[number] if classes is not None else f"class {number}"
        handles.append(Patch(facecolor=fraction(palette[number]), edgecolor="black", linewidth=0.5, label=name))
    return handles


def fraction(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    """Give an RGB colour as matplotlib takes it, from 0 to 1."""
    red, green, blue = colour
    return red / 255, green / 255, blue / 255


def require_shape(image: Image, **maps: Labels | None) -> None:
    """Raise `DataError` for a label map that is not of its image's size."""
    for name, labels in maps.items():
        if labels is not None and labels.shape != image.shape[:2]:
            raise DataError(f"{name} is a map of {labels.shape}, its image is {image.shape[:2]}: sizes must agree")
