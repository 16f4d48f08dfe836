"""Label maps over an image, and baseline and reduced label maps side by side."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ..data.palettes import Palette
from .arrays import Image, blend
from .canvas import (
    IGNORE_INDEX,
    Labels,
    class_handles,
    hex_colour,
    new_figure,
    paint,
    palette_for,
    panel_size,
    remove_frame,
    require_shape,
    show,
)

_LINE, _COLUMN = 0.2, 1.35  # inches of a legend's line and column
_IMAGE_OPACITY = 0.3  # of the grey image below the differences

# Colours of Okabe and Ito, which colour-blind people can distinguish; grey where the reducer changes nothing.
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
        opacity: Weight of the class's colour in a pixel.

    Raises:
        DataError: The sizes differ.
    """
    require_shape(image, labels=labels)
    palette = palette_for([labels], palette)
    handles = class_handles([labels], classes, palette)
    width, height = (2 * side for side in panel_size(*labels.shape))
    columns = max(int(width / _COLUMN), 1)
    figure = new_figure(width, height + _LINE * (2 - -len(handles) // -columns))
    show(figure.subplots(), blend(image, paint(labels, palette), opacity), "")
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    return figure


def compare(
    image: Image,
    baseline: Labels,
    reduced: Labels,
    *,
    label: Labels | None = None,
    classes: Sequence[str] | None = None,
    palette: Palette | None = None,
    names: tuple[str, str] = ("baseline", "reduced"),
) -> Figure:
    """Draw an image, its ground truth, its labels without and with a reducer, and where those differ.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        baseline: Class indices ``(H, W)`` predicted without the reducer.
        reduced: Class indices ``(H, W)`` predicted with it.
        label: Ground truth ``(H, W)``, 255 = ignored. With it, the figure marks where each prediction is wrong and
            shows its mIoU on this image (over the classes that occur in label or prediction).
        classes: Names of the classes, in index order.
        palette: RGB colour of each class; generated ones by default.
        names: Titles of the two predictions.

    Raises:
        DataError: The sizes differ.
    """
    require_shape(image, baseline=baseline, reduced=reduced, label=label)
    maps = [baseline, reduced, *([label] if label is not None else [])]
    palette = palette_for(maps, palette)
    if label is None:
        layout = [["image", "difference", "legend"], ["baseline", "reduced", "legend"]]
    else:
        layout = [["image", "label", "difference"], ["baseline", "reduced", "legend"]]
    width, height = panel_size(*baseline.shape)
    figure = new_figure(3 * width + 0.3, 2 * height + 1.1)
    axes: dict[str, Axes] = figure.subplot_mosaic(layout)  # type: ignore[arg-type]
    show(axes["image"], image, "image")
    if label is not None:
        show(axes["label"], paint(label, palette), "ground truth")
    for variant, name, labels in (("baseline", names[0], baseline), ("reduced", names[1], reduced)):
        score = "" if label is None else _score_text(labels, label)
        show(axes[variant], paint(labels, palette), name, score)
    changes = difference_map(baseline, reduced, label)
    title = "where they differ" if label is None else "where they differ or are wrong"
    caption = f"{100 * np.mean(baseline != reduced):.1f} % of the pixels have another label"
    show(axes["difference"], _paint_changes(image, changes), title, caption)
    _draw_legends(axes["legend"], class_handles(maps, classes, palette), _change_handles(changes, names), title)
    return figure


def difference_map(baseline: Labels, reduced: Labels, label: Labels | None = None) -> NDArray[np.uint8]:
    """Classify each pixel ``(H, W)`` by how two predictions differ, or are wrong: one of the codes above, or 0."""
    changed = np.where(baseline != reduced, CHANGED, 0).astype(np.uint8)
    if label is None:
        return changed
    right = baseline == label, reduced == label
    codes = np.select(
        [right[0] & right[1], right[0], right[1], baseline == reduced],
        [0, LOST, GAINED, BOTH_WRONG],
        BOTH_WRONG_DIFFERENTLY,
    )
    return np.where(label == IGNORE_INDEX, changed, codes).astype(np.uint8)


def image_miou(prediction: Labels, label: Labels) -> float:
    """Compute the mIoU of one image ``(H, W)`` in percent, over the classes that occur; NaN if no pixel is labelled."""
    prediction, label = prediction[label != IGNORE_INDEX], label[label != IGNORE_INDEX]
    pairs = ((prediction == index, label == index) for index in np.union1d(prediction, label))
    ious = [np.sum(predicted & labelled) / np.sum(predicted | labelled) for predicted, labelled in pairs]
    return 100 * float(np.mean(ious)) if ious else float("nan")


def _score_text(prediction: Labels, label: Labels) -> str:
    score = image_miou(prediction, label)
    return "no labelled pixel" if np.isnan(score) else f"mIoU of this image: {score:.1f} %"


def _paint_changes(image: Image, changes: NDArray[np.uint8]) -> Image:
    grey = image.mean(axis=2, keepdims=True) * _IMAGE_OPACITY + 255 * (1 - _IMAGE_OPACITY)
    pixels: Image = np.repeat(grey, 3, axis=2).astype(np.uint8)
    for code, (_, colour) in enumerate(_CHANGES, start=1):
        pixels[changes == code] = colour
    return pixels


def _change_handles(changes: NDArray[np.uint8], names: tuple[str, str]) -> list[Patch]:
    fractions = np.bincount(changes.ravel(), minlength=len(_CHANGES) + 1) / changes.size
    return [
        Patch(facecolor=hex_colour(colour), label=f"{text.format(*names)} ({100 * fraction:.1f} %)")
        for (text, colour), fraction in zip(_CHANGES, fractions[1:], strict=True)
        if fraction
    ]


def _draw_legends(axes: Axes, classes: list[Patch], changes: list[Patch], title: str) -> None:
    remove_frame(axes)
    style = {"frameon": False, "fontsize": 8.5, "title_fontsize": 9, "alignment": "left"}
    columns = 2 if len(classes) <= 24 else 3
    axes.add_artist(axes.legend(handles=classes, loc="upper left", ncols=columns, title="classes", **style))
    if changes:
        axes.legend(handles=changes, loc="lower left", title=title, **style)
