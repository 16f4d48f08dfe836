"""A report as one self-contained page."""

import base64
import hashlib
import html
import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import pandas as pd
from plotly.offline import get_plotlyjs

from ..text import MISSING, signed
from .cautions import Missing, provenances, subjects_of
from .front import AXES, Axis, FrontView, answers, views
from .pictures import BASELINE, looks
from .tables import COLUMNS, columns_of, legend


def page(
    table: pd.DataFrame, classes: Mapping[str, pd.DataFrame], cautions: Sequence[str], missing: Sequence[Missing]
) -> str:
    """Return the page: everything is in it, and its policy forbids loading anything.

    Args:
        table: As `read_results` returns it.
        classes: IoU per class of each subject, see `tables.iou_table`.
        cautions: How runs differ.
        missing: Missing results, with the commands that make them.

    Returns:
        HTML. Texts from files are escaped everywhere.
    """
    found = views(table)
    scripts = [get_plotlyjs(), _asset("report.js")] if found else [_asset("report.js")]
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        scripts=scripts,
        digests=digests,
        style=_asset("report.css"),
        answers=[(view, sentences) for view in found if (sentences := list(answers(view)))],
        cautions=cautions,
        missing=missing,
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
        classes=[(subject, part, _largest(part)) for subject, part in classes.items()],
        provenances=provenances(table),
        signed=signed,
        missing_text=MISSING,
        isna=pd.isna,
    )


def figure(view: FrontView, axis: Axis) -> dict[str, Any]:
    """Return what plotly draws of a view: the front and the settings of each method.

    Colours that depend on the page's theme are named as CSS variables, which the page's script replaces.
    """
    front = view.front(axis)
    line = {"color": "var(--front)", "width": 1.5, "shape": "vh" if axis.higher_is_better else "hv"}
    data = [_trace(front, axis, name="Pareto front", mode="lines", line=line, hoverinfo="skip")]
    for name, (look, points) in looks(view.points(axis)).items():
        marker = {
            "color": "var(--text)" if look is BASELINE else look.color,
            "symbol": look.symbol,
            "size": 15 if look is BASELINE else 11,
            "opacity": [1.0 if index in front.index else 0.5 for index in points.index],
        }
        hover = {"text": [_hover_text(row) for _, row in points.iterrows()], "hovertemplate": "%{text}<extra></extra>"}
        trace = _trace(points, axis, name=html.escape(name), mode="markers", marker=marker, **hover)
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


def _largest(table: pd.DataFrame) -> float:
    """Return the largest gain or loss of a class, which has the strongest colour."""
    return max(float(table.iloc[:, 2:].abs().max(axis=None)), 0.1)


def _asset(name: str) -> str:
    return importlib.resources.files("lightning_expedite").joinpath(f"assets/{name}").read_text("utf-8")
