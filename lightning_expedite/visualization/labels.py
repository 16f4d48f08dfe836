"""Label maps over images, and side by side."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ..data.palettes import Palette
from .canvas import (
    IGNORE_INDEX,
    Image,
    Labels,
    bare,
    class_handles,
    colours_for,
    fraction,
    new_figure,
    paint,
    panel_size,
    require_shape,
    show,
)

_LINE, _COLUMN = 0.2, 1.35  # inches of a legend's line and column
_GREY = 0.3  # how much of the image shines through where nothing differs

# Colours of Okabe and Ito, told apart by colour-blind people too; grey where the reducer changes nothing.
_CHANGES = (
    ("only {1} is wrong", (213, 94, 0)),
    ("only {0} is wrong", (0, 114, 178)),
    ("both wrong, the same label", (130, 130, 130)),
    ("both wrong, other labels", (0, 0, 0)),
    ("another label, ground truth unknown", (230, 159, 0)),
)
LOST, GAINED, BOTH_WRONG, BOTH_WRONG_DIFFERENTLY, CHANGED = range(1, len(_CHANGES) + 1)


def overlay(
    image: Image,
    labels: Labels,
    *,
    classes: Sequence[str] | None = None,
    palette: Palette | None = None,
    opacity: float = 0.5,
) -> Figure:
    """Draw labels over their image, with a legend of the classes that occur.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        labels: Class indices ``(H, W)``; 255 = ignored.
        classes: Names of the classes, in index order.
        palette: RGB colour of each class; generated ones by default.
        opacity: Share of the class's colour in a pixel.

    Raises:
        DataError: The sizes differ.
    """
    require_shape(image, labels=labels)
    palette = colours_for([labels], palette)
    handles = class_handles([labels], classes, palette)
    width, height = (2 * side for side in panel_size(*labels.shape))
    columns = max(int(width / _COLUMN), 1)
    figure = new_figure(width, height + _LINE * (2 - -len(handles) // -columns))
    mixed = (1 - opacity) * image + opacity * paint(labels, palette)
    show(figure.subplots(), (mixed + 0.5).astype(np.uint8), "")
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    return figure


def compare(
    image: Image,
    unreduced: Labels,
    reduced: Labels,
    *,
    label: Labels | None = None,
    classes: Sequence[str] | None = None,
    palette: Palette | None = None,
    names: tuple[str, str] = ("unreduced", "reduced"),
) -> Figure:
    """Draw an image, its ground truth, its labels without and with a reducer, and where those differ.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        unreduced: Class indices ``(H, W)`` without the reducer.
        reduced: Class indices ``(H, W)`` with it.
        label: Ground truth ``(H, W)``, 255 = ignored. With it, the figure says where each side is wrong, and under each
            the mIoU of this image (classes that occur in neither labels nor prediction are left out).
        classes: Names of the classes, in index order.
        palette: RGB colour of each class; generated ones by default.
        names: Titles of the two sides.

    Raises:
        DataError: The sizes differ.
    """
    require_shape(image, unreduced=unreduced, reduced=reduced, label=label)
    maps = [unreduced, reduced, *([label] if label is not None else [])]
    palette = colours_for(maps, palette)
    if label is None:
        layout = [["image", "difference", "legend"], ["unreduced", "reduced", "legend"]]
    else:
        layout = [["image", "label", "difference"], ["unreduced", "reduced", "legend"]]
    width, height = panel_size(*unreduced.shape)
    figure = new_figure(3 * width + 0.3, 2 * height + 1.1)
    axes: dict[str, Axes] = figure.subplot_mosaic(layout)  # type: ignore[arg-type]
    show(axes["image"], image, "image")
    if label is not None:
        show(axes["label"], paint(label, palette), "ground truth")
    for side, name, labels in (("unreduced", names[0], unreduced), ("reduced", names[1], reduced)):
        score = "" if label is None else _score_text(labels, label, len(palette))
        show(axes[side], paint(labels, palette), name, score)
    changes = difference(unreduced, reduced, label)
    differing = 100 * float(np.mean(unreduced != reduced))
    marks = "where they differ" if label is None else "where they differ or are wrong"
    below = f"{differing:.1f} % of the pixels have another label"
    show(axes["difference"], _paint_changes(image, changes), marks, below)
    _draw_legends(axes["legend"], class_handles(maps, classes, palette), _change_handles(changes, names), marks)
    return figure


def difference(unreduced: Labels, reduced: Labels, label: Labels | None = None) -> NDArray[np.uint8]:
    """Tell for each pixel ``(H, W)`` how the labels of both sides differ, or are wrong.

    Returns:
        0 where both have the same label and, where that is known, the right one; else `LOST`, `GAINED`, `BOTH_WRONG` or
        `BOTH_WRONG_DIFFERENTLY`; `CHANGED` for other labels where the ground truth is not known or ignored.
    """
    differ = unreduced != reduced
    if label is None:
        return np.where(differ, CHANGED, 0).astype(np.uint8)
    right, still = unreduced == label, reduced == label
    codes = np.where(differ, BOTH_WRONG_DIFFERENTLY, BOTH_WRONG)
    codes[right & ~still], codes[still & ~right], codes[right & still] = LOST, GAINED, 0
    return np.where(label == IGNORE_INDEX, np.where(differ, CHANGED, 0), codes).astype(np.uint8)


def image_miou(prediction: Labels, label: Labels, num_classes: int) -> float:
    """Give the mIoU of one image in percent; NaN where no pixel is labelled.

    Classes that occur in neither are left out, pixels whose label is 255 count nowhere.

    Args:
        prediction: Class indices ``(H, W)``.
        label: Class indices ``(H, W)``.
        num_classes: Number of classes.
    """
    counted = label != IGNORE_INDEX
    pairs = label[counted].astype(np.int64) * num_classes + prediction[counted]
    table = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    union = table.sum(0) + table.sum(1) - table.diagonal()
    if not union.any():
        return float("nan")
    return 100 * float(np.mean(table.diagonal()[union > 0] / union[union > 0]))


def _score_text(prediction: Labels, label: Labels, num_classes: int) -> str:
    score = image_miou(prediction, label, num_classes)
    return "no labelled pixel" if np.isnan(score) else f"mIoU of this image: {score:.1f} %"


def _paint_changes(image: Image, changes: NDArray[np.uint8]) -> Image:
    grey = image.mean(axis=2, keepdims=True) * _GREY + 255 * (1 - _GREY)
    picture = np.repeat(grey, 3, axis=2).astype(np.uint8)
    for number, (_, colour) in enumerate(_CHANGES, start=1):
        picture[changes == number] = colour
    return picture


def _change_handles(changes: NDArray[np.uint8], names: tuple[str, str]) -> list[Patch]:
    shares = np.bincount(changes.ravel(), minlength=len(_CHANGES) + 1) / changes.size
    return [
        Patch(facecolor=fraction(colour), label=f"{text.format(*names)} ({100 * share:.1f} %)")
        for (text, colour), share in zip(_CHANGES, shares[1:], strict=True)
        if share
    ]


def _draw_legends(axes: Axes, classes: list[Patch], changes: list[Patch], marks: str) -> None:
    bare(axes)
    look = {"frameon": False, "fontsize": 8.5, "title_fontsize": 9, "alignment": "left"}
    columns = 2 if len(classes) <= 24 else 3
    axes.add_artist(axes.legend(handles=classes, loc="upper left", ncols=columns, title="classes", **look))
    if changes:
        axes.legend(handles=changes, loc="lower left", title=marks, **look)
