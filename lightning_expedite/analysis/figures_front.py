"""Pictures of Pareto fronts: every setting's mIoU against what it costs."""

import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ..text import shortened
from .comparison import Entry
from .front import Axis, View
from .looks import UNREDUCED, looks_of, saved

SIZE = (7.4, 5.2)  # inches
LABELS_AT_MOST = 6
_LONGEST_LABEL = 46
_FRONT = "0.35"
Place = tuple[float, float]


def front_picture(view: View, axis: Axis) -> dict[str, bytes]:
    """Draw all settings, the front as a step line, and names of a few settings on it.

    Args:
        view: What to draw.
        axis: What goes to the right.

    Returns:
        The content of a PNG and an SVG file, by their suffixes.
    """
    return saved(lambda: _figure(view, axis))


def _figure(view: View, axis: Axis) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(figure)  # measures texts
    axes = figure.add_subplot()
    points, front = view.points(axis), view.front(axis)
    _draw_points(axes, points, axis)
    _pad(axes)
    line = _draw_front(axes, front, axis)
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_title(_wrapped(view.subject.title, 80), fontsize=10, loc="left")
    axes.set_xlabel(_wrapped(axis.title(view.entries), 88))
    axes.set_ylabel("mIoU, %")
    _legend(figure, points)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # labels are placed where the axes are now
    spots = [tuple(axes.transData.transform((value, miou))) for _, value, miou in points]
    along = [place for place, following in pairwise(line) for place in _between(axes, place, following)]
    _label(figure, axes, points, [entry for entry, _, _ in front], (spots, along))
    return figure


def _draw_points(axes: Any, points: Sequence[tuple[Entry, float, float]], axis: Axis) -> None:
    looks = looks_of(entry.method for entry, _, _ in points)
    for entry, value, miou in points:
        look = UNREDUCED if entry.unreduced else looks[entry.method]
        if axis.key == "latency" and entry.figures is not None:
            spread = entry.figures.latency
            ends = ((max(value - spread.low, 0),), (max(spread.high - value, 0),))
            axes.errorbar(value, miou, xerr=ends, ecolor=look.color, elinewidth=0.8, alpha=0.6, zorder=2)
        size = 13 if entry.unreduced else 7
        edge = {"markeredgecolor": "white", "markeredgewidth": 0.6}
        axes.plot(value, miou, look.marker, color=look.color, markersize=size, zorder=4, **edge)


def _pad(axes: Any) -> None:
    """Leave room around the points, for their names."""
    axes.margins(x=0.12, y=0.1)
    axes.autoscale_view()
    axes.set_xlim(axes.get_xlim())
    axes.set_ylim(axes.get_ylim())


def _draw_front(axes: Any, front: Sequence[tuple[Entry, float, float]], axis: Axis) -> list[Place]:
    """Draw the best mIoU that each price buys, up to the end of the axes; gives the corners of the line."""
    places = [(value, miou) for _, value, miou in front]
    left, right = axes.get_xlim()
    bottom = axes.get_ylim()[0]
    if axis.more_is_better:
        steps = [corner for one, other in pairwise(places) for corner in ((one[0], other[1]), other)]
        corners = [(left, places[0][1]), places[0], *steps, (places[-1][0], bottom)]
    else:
        steps = [corner for one, other in pairwise(places) for corner in ((other[0], one[1]), other)]
        corners = [(places[0][0], bottom), places[0], *steps, (right, places[-1][1])]
    axes.plot(*zip(*corners, strict=True), color=_FRONT, linewidth=1.1, zorder=1)
    return corners


def _between(axes: Any, one: Place, other: Place) -> list[Place]:
    """Give places along a line, a few dots apart, in the picture's dots."""
    (x, y), (to_x, to_y) = axes.transData.transform([one, other])
    steps = max(1, round(max(abs(to_x - x), abs(to_y - y)) / 3))
    return [(x + (to_x - x) * step / steps, y + (to_y - y) * step / steps) for step in range(steps + 1)]


def _legend(figure: Any, points: Sequence[tuple[Entry, float, float]]) -> None:
    from matplotlib.lines import Line2D

    looks = looks_of(entry.method for entry, _, _ in points)
    names = ["unreduced" if method == "none" else method.lstrip("_") or method for method in looks]
    handles: list[Line2D] = [
        Line2D(
            [], [], linestyle="none", marker=look.marker, color=look.color, markersize=10 if name == "unreduced" else 6
        )
        for look, name in zip(looks.values(), names, strict=True)
    ]
    handles.append(Line2D([], [], color=_FRONT, linewidth=1.1, drawstyle="steps-post"))
    figure.legend(handles, [*names, "Pareto front"], loc="outside lower center", ncols=4, frameon=False)


# --- Names of points ---------------------------------------------------------------------------------

_OFFSETS = [
    (sideways * reach, up * reach)
    for reach in (9, 20, 34, 50)
    for sideways, up in ((-1, 1), (1, -1), (1, 0.3), (1, 1), (-1, 0.3), (-1, -1), (0, -1.3), (0, 1.3))
]


def _label(
    figure: Any,
    axes: Any,
    points: Sequence[tuple[Entry, float, float]],
    front: Sequence[Entry],
    drawn: tuple[Sequence[Place], Sequence[Place]],
) -> None:
    """Name the unreduced model and a few settings on the front, where there is room beside what is drawn."""
    named = [entry for entry in front if not entry.unreduced]
    step = max(1, -(-len(named) // LABELS_AT_MOST))
    chosen = [entry for entry, _, _ in points if entry.unreduced] + named[::step]
    renderer: Any = figure.canvas.get_renderer()
    inside = axes.get_window_extent(renderer)
    places = {entry: (value, miou) for entry, value, miou in points}
    taken: list[Any] = []
    for entry in chosen:
        for offset in _OFFSETS:
            label = _name(axes, shortened(entry.title, _LONGEST_LABEL), places[entry], offset)
            box = label.get_window_extent(renderer).padded(2)
            if _free(box, inside, drawn, taken):
                taken.append(box)
                break
            label.remove()


def _name(axes: Any, text: str, place: tuple[float, float], offset: tuple[float, float]) -> Any:
    """Write a name beside a point, joined to it by a thin line where it is not right beside it."""
    line = {"arrowstyle": "-", "color": "0.5", "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4}
    return axes.annotate(
        text,
        place,
        offset,
        textcoords="offset points",
        fontsize=8,
        ha="left" if offset[0] > 0 else "right" if offset[0] < 0 else "center",
        va="center",
        zorder=5,
        arrowprops=line if max(map(abs, offset)) > 12 else None,
    )


def _free(box: Any, inside: Any, drawn: tuple[Sequence[Place], Sequence[Place]], taken: Sequence[Any]) -> bool:
    """Tell whether a label would lie within the axes, beside all points, the front and all other labels."""
    if not (inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1):
        return False
    points, line = drawn
    around = box.padded(5)
    return not (
        any(around.contains(*spot) for spot in points)
        or any(box.contains(*spot) for spot in line)
        or any(box.overlaps(other) for other in taken)
    )


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width))
