"""Pareto fronts as PNG and SVG files."""

import io
import textwrap
import warnings
from typing import Any, NamedTuple

import pandas as pd

from .front import Axis, FrontView


class Look(NamedTuple):
    """A colour of Okabe and Ito's palette, distinguishable with any colour vision; markers of plotly and matplotlib."""

    color: str
    symbol: str
    marker: str


BASELINE = Look("black", "star", "*")
_KNOWN = {
    "TokenClustering": Look("#0072B2", "circle", "o"),
    "EViT": Look("#D55E00", "square", "s"),
    "ToMe": Look("#009E73", "triangle-up", "^"),
    "ACT": Look("#CC79A7", "diamond", "D"),
}
_OTHERS = (Look("#E69F00", "triangle-down", "v"), Look("#56B4E9", "cross", "P"), Look("#999999", "x", "X"))
_STYLE: Any = {
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib; an SVG names every font listed here in every text
    "font.size": 9,
    "text.parse_math": False,  # a dollar sign in a name does not start a formula
    "svg.fonttype": "none",  # text stays text: smaller, and can be searched
    "svg.hashsalt": "lightning_expedite",  # the same results make the same file
}


def looks(table: pd.DataFrame) -> dict[str, tuple[Look, pd.DataFrame]]:
    """Return the look and the settings of each method, the baseline first."""
    found: dict[str, tuple[Look, pd.DataFrame]] = {}
    for method, part in table.groupby("method", sort=False):
        others = [look for look, _ in found.values() if look in _OTHERS]
        look = BASELINE if method == "none" else _KNOWN.get(str(method), _OTHERS[len(others) % len(_OTHERS)])
        found["baseline" if method == "none" else str(method)] = (look, part)
    return found


def front_picture(view: FrontView, axis: Axis) -> dict[str, bytes]:
    """Draw all settings and the front as a step line.

    Returns:
        The content of a PNG and an SVG file by their suffixes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # of names in scripts that the font lacks
        matplotlib.rcdefaults()  # whatever style the user has set
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(7.4, 5.2), layout="constrained")
        axes = figure.add_subplot()
        for name, (look, points) in looks(view.points(axis)).items():
            size = 12 if look is BASELINE else 7
            axes.plot(
                points[axis.column],
                points["mIoU"],
                look.marker,
                color=look.color,
                markersize=size,
                label=name.lstrip("_") or name,  # matplotlib leaves out names that begin with an underscore
            )
        front = view.front(axis)
        step = "steps-pre" if axis.higher_is_better else "steps-post"
        axes.plot(
            front[axis.column], front["mIoU"], color="0.35", linewidth=1.1, zorder=1, drawstyle=step, label="front"
        )
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_title("\n".join(textwrap.wrap(f"{view.subject}; {view.environment}", 80)), fontsize=10, loc="left")
        axes.set_xlabel(view.title(axis))
        axes.set_ylabel("mIoU, %")
        axes.legend()
        files = {}
        for suffix in (".png", ".svg"):
            stream = io.BytesIO()
            # A date would make another file of the same results.
            figure.savefig(stream, format=suffix[1:], dpi=150, metadata={"Date": None} if suffix == ".svg" else {})
            files[suffix] = stream.getvalue()
    return files
