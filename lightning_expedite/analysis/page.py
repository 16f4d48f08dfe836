"""A report as one page that needs nothing but itself."""

import base64
import hashlib
import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from ..text import digits, number, signed
from .cautions import Missing
from .columns import columns_of
from .comparison import Entry, Subject, speedup_of
from .front import AXES, View, answers
from .looks import looks_of
from .per_class import ClassTable
from .provenance import Provenance
from .text_tables import legend

_CURRENT_COLOR = "currentColor"  # the unreduced model's: black would vanish on a dark page


@dataclass(frozen=True)
class Picture:
    """A drawn picture: ``files`` holds its content by suffix."""

    name: str
    subject: Subject
    caption: str
    files: Mapping[str, bytes]


def page(
    subjects: Sequence[Subject],
    views: Sequence[View],
    classes: Sequence[ClassTable],
    pictures: Sequence[Picture],
    provenances: Sequence[Provenance],
    cautions: Sequence[str],
    missing: Sequence[Missing],
) -> str:
    """Make the page: everything is in it, and its policy forbids it to load anything.

    Args:
        subjects: What is compared.
        views: The settings that have a place on a front.
        classes: Gains and losses per class.
        pictures: Inlined as SVG, so that they can be seen without scripts.
        provenances: What the runs were computed with.
        cautions: What the reader has to know before comparing.
        missing: Results that are not there.

    Returns:
        HTML. Texts from files are escaped wherever they stand; scripts put them in place as text only.
    """
    script = _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        script=script,
        digest=digest,
        style=_asset("report.css"),
        tables=[(subject, columns_of(subject)) for subject in subjects],
        answers=[(view, sentences) for view in views if (sentences := answers(view))],
        pictures=[(picture, _data_uri(picture.files[".svg"])) for picture in pictures],
        provenances=provenances,
        cautions=cautions,
        missing=missing,
        legend=legend(subjects),
        charts=[chart(view) for view in views],
        classes=[class_data(table) for table in classes],
    )


def chart(view: View) -> dict[str, Any]:
    """Give what the page's script draws of a view: points, their places on every axis, and the fronts."""
    entries = [entry for entry in view.entries if entry.figures is not None]
    looks = looks_of(entry.method for entry in entries)
    return {
        "title": f"{view.subject.title}; {view.environment}",
        "axes": [
            {
                "key": axis.key,
                "name": f"{axis.name}, {axis.unit}",
                "title": axis.title(view.entries),
                "more": axis.more_is_better,
                "front": [entries.index(entry) for entry, _, _ in view.front(axis)],
            }
            for axis in AXES
            if view.points(axis)
        ],
        "points": [
            {
                "title": entry.title,
                "method": "unreduced" if entry.unreduced else entry.method,
                "color": _CURRENT_COLOR if entry.unreduced else looks[entry.method].color,
                "marker": looks[entry.method].marker,
                "miou": entry.miou,
                "values": {axis.key: axis.value(entry) for axis in AXES},
                "facts": facts(entry),
            }
            for entry in entries
        ],
    }


def facts(entry: Entry) -> list[str]:
    """Give the figures of a setting, a line each."""
    figures = entry.figures
    lines = [f"mIoU {number(entry.miou, '.2f')} %"]
    if entry.miou_difference is not None:
        lines[0] += f" ({signed(entry.miou_difference)} points)"
    if figures is None:
        return lines
    latency = figures.latency
    lines.append(f"latency {digits(latency.median)} ms [{digits(latency.low)}, {digits(latency.high)}]")
    speedup = f"speed-up {number(speedup_of(figures), '.2f')}"
    if figures.speedup is not None:
        speedup += f" [{figures.speedup.low:.2f}, {figures.speedup.high:.2f}]"
    lines.append(speedup)
    lines.append(f"throughput {digits(figures.throughput)} images/s (batch {figures.batch_size})")
    lines.append(f"GFLOPs {digits(figures.gflops)}, ratio {number(figures.flop_ratio, '.2f')}")
    lines.append(f"efficiency {number(figures.efficiency, '.2f')}")
    lines.append(f"peak memory {digits(figures.peak_memory_mib)} MiB")
    return lines


def class_data(table: ClassTable) -> dict[str, Any]:
    """Give what the page's script shows of the classes; two digits behind the point are what a reader sees."""
    return {
        "title": table.subject.title,
        "classes": table.classes,
        "unreduced": [_rounded(value) for value in table.unreduced],
        "settings": [
            {"title": entry.title, "differences": [_rounded(value) for value in row]} for entry, row in table.rows
        ],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _asset(name: str) -> str:
    return importlib.resources.files("lightning_expedite").joinpath(f"assets/{name}").read_text("utf-8")
