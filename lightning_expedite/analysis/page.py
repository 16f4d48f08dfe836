"""A report as one self-contained page."""

import base64
import hashlib
import html
import importlib.resources
from collections.abc import Mapping
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from plotly.offline import get_plotlyjs

from ..text import MISSING, signed
from .cautions import provenances, subjects_of
from .front import AXES, Axis, FrontView, answers, views
from .tables import COLUMNS, columns_of, legend


class Look(NamedTuple):
    """A colour, of Okabe and Ito's palette (distinguishable with any colour vision), and a symbol of plotly."""

    color: str
    symbol: str
    size: int = 11


_BASELINE = Look("var(--text)", "star", 15)
_KNOWN = {
    "TokenClustering": Look("#0072B2", "circle"),
    "EViT": Look("#D55E00", "square"),
    "ToMe": Look("#009E73", "triangle-up"),
    "ACT": Look("#CC79A7", "diamond"),
}
_OTHERS = (Look("#E69F00", "triangle-down"), Look("#56B4E9", "cross"), Look("#999999", "x"))


def page(table: pd.DataFrame, classes: Mapping[str, pd.DataFrame], **lists: Any) -> str:
    """Return the page: everything is in it, and its policy forbids loading anything.

    Args:
        table: As `read_results` returns it.
        classes: IoU per class of each subject, see `tables.iou_table`.
        lists: ``cautions`` and ``missing``.

    Returns:
        HTML. Texts from files are escaped everywhere.
    """
    found = views(table)
    scripts = [get_plotlyjs(), _asset("report.js")] if found else [_asset("report.js")]
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        scripts=scripts,
        digests=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
        style=_asset("report.css"),
        answers=[(view, sentences) for view in found if (sentences := list(answers(view)))],
        charts=[
            {
                "title": f"{view.subject}; {view.environment}",
                "axes": [{"name": axis.name, **figure(view, axis)} for axis in AXES if not view.points(axis).empty],
            }
            for view in found
        ],
        tables=[
            (subject, columns_of(part), [row for _, row in part.iterrows()]) for subject, part in subjects_of(table)
        ],
        legend=legend(table),
        # The largest gain or loss of a class has the strongest colour.
        classes=[
            (subject, part, max(float(part.iloc[:, 2:].abs().max(axis=None)), 0.1)) for subject, part in classes.items()
        ],
        provenances=provenances(table),
        signed=signed,
        missing_text=MISSING,
        isna=pd.isna,
        **lists,
    )


def figure(view: FrontView, axis: Axis) -> dict[str, Any]:
    """Return what plotly draws of a view: the front and the settings of each method.

    Colours that depend on the page's theme are named as CSS variables, which the page's script replaces.
    """
    front = view.front(axis)
    line = {"color": "var(--front)", "width": 1.5, "shape": "vh" if axis.higher_is_better else "hv"}
    data = [_trace(front, axis, name="Pareto front", mode="lines", line=line, hoverinfo="skip")]
    others = iter(_OTHERS * len(view.table))
    for method, points in view.points(axis).groupby("method", sort=False):
        look = _BASELINE if method == "none" else _KNOWN.get(str(method)) or next(others)
        opacity = [1.0 if index in front.index else 0.5 for index in points.index]
        hover = {"text": [_hover_text(row) for _, row in points.iterrows()], "hovertemplate": "%{text}<extra></extra>"}
        name = "baseline" if method == "none" else html.escape(str(method))
        marker = {**look._asdict(), "opacity": opacity}
        trace = _trace(points, axis, name=name, mode="markers", marker=marker, **hover)
        if axis.key == "latency":
            value, low, high = (points[name] for name in ("latency_ms", "latency_ms_q1", "latency_ms_q3"))
            errors = {"array": [*(high - value).clip(0)], "arrayminus": [*(value - low).clip(0)]}
            trace["error_x"] = {**errors, "symmetric": False, "thickness": 1, "width": 0}
        data.append(trace)
    return {"data": data, "title": view.title(axis)}


def _trace(points: pd.DataFrame, axis: Axis, **options: Any) -> dict[str, Any]:
    return {"type": "scatter", "x": [*points[axis.column]], "y": [*points["mIoU"]], **options}


def _hover_text(row: "pd.Series[Any]") -> str:
    """Return a setting's figures for its hover label, in the markup that plotly understands."""
    lines = [f"{column.heading}: {column.text(row)}" for column in COLUMNS[2:] if pd.notna(row[column.key])]
    return "<br>".join([f"<b>{html.escape(row['setting'])}</b>", *map(html.escape, lines)])


def _asset(name: str) -> str:
    return importlib.resources.files("lightning_expedite").joinpath(f"assets/{name}").read_text("utf-8")
