"""A picture of what each class gains or loses."""

from typing import Any

from ..text import shortened, signed
from .looks import saved
from .per_class import ClassTable

SETTINGS_AT_MOST = 8
_CELL = (0.62, 0.21)  # inches
_NAMES, _BOTTOM, _RIGHT = 1.9, 0.85, 0.3  # inches around the cells
_LETTER = 0.068  # inches that a letter of 8 points takes, about
_LONGEST_TITLE = 48
_LEAST_WIDTH = 6.0


def class_picture(table: ClassTable) -> dict[str, bytes]:
    """Draw a cell for each class and setting: blue where the class gains, red where it loses, with the figure in it.

    Args:
        table: At most `SETTINGS_AT_MOST` settings stay legible.

    Returns:
        The content of a PNG and an SVG file, by their suffixes.
    """
    return saved(lambda: _figure(table))


def _figure(table: ClassTable) -> Any:
    from matplotlib.figure import Figure

    columns, rows = len(table.rows), len(table.classes)
    titles = [shortened(entry.title, _LONGEST_TITLE) for entry, _ in table.rows]
    slanted = max(map(len, titles)) * _LETTER * 0.71  # at 45 degrees as wide as high
    right = max(_RIGHT, slanted - 0.2, _LEAST_WIDTH - _NAMES - columns * _CELL[0])
    width, height = _NAMES + columns * _CELL[0] + right, 0.5 + slanted + rows * _CELL[1] + _BOTTOM
    figure = Figure(figsize=(width, height))
    cells = (_NAMES / width, _BOTTOM / height, columns * _CELL[0] / width, rows * _CELL[1] / height)
    axes = figure.add_axes(cells)
    order = table.by_loss()
    values = [[differences[index] for _, differences in table.rows] for index in order]
    colors = _draw_cells(axes, values)
    axes.set_yticks(range(rows), [_class_name(table, index) for index in order], fontsize=8)
    axes.set_xticks(
        range(columns),
        titles,
        rotation=45,
        ha="left",
        rotation_mode="anchor",
        fontsize=8,
    )
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes.spines[:].set_visible(False)
    bar = figure.add_axes((_NAMES / width, 0.45 / height, max(columns * _CELL[0], 2.4) / width, 0.1 / height))
    figure.colorbar(colors, cax=bar, orientation="horizontal").ax.tick_params(labelsize=8)
    text = "IoU minus that of the unreduced model, points; beside a class: its unreduced IoU, %"
    figure.text(0.08 / width, 0.06 / height, text, fontsize=8)
    figure.text(0.08 / width, 1 - 0.2 / height, shortened(table.subject.title, 80), fontsize=10)
    return figure


def _draw_cells(axes: Any, values: list[list[float | None]]) -> Any:
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    known = [abs(value) for row in values for value in row if value is not None]
    end = max([*known, 0.1])
    numbers = [[float("nan") if value is None else value for value in row] for row in values]
    colors = colormaps["RdBu"].with_extremes(bad="0.9")
    drawn = axes.imshow(numbers, cmap=colors, norm=Normalize(-end, end), aspect="auto")
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            dark = value is not None and abs(value) > 0.6 * end
            axes.text(
                x, y, signed(value, ".1f"), ha="center", va="center", fontsize=7.5, color="white" if dark else "black"
            )
    return drawn


def _class_name(table: ClassTable, index: int) -> str:
    iou = table.unreduced[index]
    name = shortened(table.classes[index], 20)
    return name if iou is None else f"{name}  {iou:.1f}"
