"""Figures and table of a results file of ``benchmarks/rows.py``, beside the published rows.

All numbers come from the results file and from ``tests/data/published.json``.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rows import PUBLISHED, config_of


class Method(NamedTuple):
    """A reducer's class: its name, target efficiency and marker."""

    name: str
    target: float | None
    color: str  # of Okabe and Ito's palette, distinguishable with any colour vision
    marker: str


METHODS = (
    Method("TokenClustering", 0.95, "#0072B2", "o"),
    Method("EViT", 0.95, "#D55E00", "s"),
    Method("ToMe", 0.85, "#009E73", "^"),
    Method("ACT", None, "#CC79A7", "D"),
)
LEAST_SPEEDUP = 1.0  # of every method
DATA_SETS = {"ade": "ADE20K", "city": "Cityscapes", "pcontext": "PASCAL-Context", "demo": "Demo scenes"}
SIGN = "†"


class Published(NamedTuple):
    """Published figures of a row."""

    ratio: float
    speedup: float

    @property
    def efficiency(self) -> float:
        """Speed-up over FLOP ratio."""
        return self.speedup / self.ratio


@dataclass(frozen=True)
class Point:
    """A row's figures at one batch size."""

    panel: str  # data set and window
    method: Method
    setting: str
    gflops: tuple[float, float]  # baseline, reduced
    ms: tuple[float, float]  # per image
    speedup: dict[str, Any]  # as the results have it: median, quartiles, range, pairs
    batch: int
    published: Published | None

    @property
    def ratio(self) -> float:
        """FLOP ratio in the published convention."""
        return self.gflops[0] / self.gflops[1]

    @property
    def efficiency(self) -> float:
        """Speed-up over FLOP ratio."""
        return float(self.speedup["median"]) / self.ratio

    @property
    def slow(self) -> bool:
        """Whether the speed-up is below its target."""
        return bool(self.speedup["median"] < LEAST_SPEEDUP)

    @property
    def inefficient(self) -> bool:
        """Whether the efficiency is below its target."""
        return self.method.target is not None and self.efficiency < self.method.target


class View(NamedTuple):
    """Rows at one batch size, or at the best batch found for each."""

    batch: str
    points: list[Point]


# --- From the files to figures -----------------------------------------------------------------------


def published_rows(field: str) -> dict[str, Published]:
    """Return the published rows by config name, with speed-ups of ``fps`` or ``throughput``."""
    found = {}
    for data_set, rows in json.loads(PUBLISHED.read_text())["rows"].items():
        (none,) = (row for row in rows if row["method"] == "none")
        for row in rows:
            if row is not none:
                found[config_of(data_set, row)] = Published(none["gflops"] / row["gflops"], row[field] / none[field])
    return found


def views(content: dict[str, Any]) -> list[View]:
    """Return the rows at batch 1 and, where measured, at a larger batch."""
    rows = [row for row in content["rows"] if row["reducer"] is not None]
    fps, throughput = published_rows("fps"), published_rows("throughput")
    order = {name: place for place, name in enumerate(fps)}
    rows.sort(key=lambda row: order.get(row["config"], len(order)))  # not as measured: a run may begin with any row
    single = [point(row, row["latency"], 1, fps) for row in rows]
    larger = [
        point(row, row["throughput"], row["throughput"]["batch_size"], throughput)
        for row in rows
        if row["throughput"]["batch_size"] > 1
    ]
    return [View(span("batch", {point.batch for point in points}), points) for points in (single, larger) if points]


def point(row: dict[str, Any], measured: dict[str, Any], batch: int, published: dict[str, Published]) -> Point:
    """Compute a row's figures from its latency or throughput."""
    variants = (measured["unreduced"], measured["reduced"])
    baseline, reduced = (
        each["median_ms"] if isinstance(each, dict) else 1000 / each
        for each in variants  # throughput: images per second
    )
    method = next(method for method in METHODS if row["reducer"]["class_path"].endswith(f".{method.name}"))
    height, width = row["input"]["size"]
    return Point(
        f"{DATA_SETS[row['config'].partition('_')[0]]} {height} x {width}",
        method,
        setting(method, row["reducer"]["init_args"]),
        (row["gflops"]["unreduced"], row["gflops"]["reduced"]),
        (baseline, reduced),
        measured["speedup"],
        batch,
        published.get(row["config"]),
    )


def setting(method: Method, given: dict[str, Any]) -> str:
    """Describe a reducer's setting as the published tables do."""
    if method.name == "TokenClustering":
        clusters = given["clusters"] if isinstance(given["clusters"], list) else [given["clusters"]] * 2
        return f"{clusters[0]} x {clusters[1]} after layer {given['location']}"
    if method.name == "EViT":
        return f"{given['keep_rate']:.0%} kept in layers {', '.join(map(str, given['locations']))}"
    return f"ratio {given['ratio']:g}" if method.name == "ToMe" else f"{given['query_hashes']} hashes"


def span(name: str, values: Iterable[float]) -> str:
    """Format a value, or the minimum and maximum of several."""
    ends = sorted({min(values := list(values)), max(values)})
    return f"{name} {' to '.join(f'{end:.4g}' for end in ends)}"


def describe(content: dict[str, Any]) -> dict[str, str]:
    """Describe device, versions, precision and commit."""
    environment, compiled = content["environment"], content["settings"]["compile"]
    where = "" if environment["device_type"] == "cpu" else " on the CPU"
    mode = "not compiled" if not compiled else "compiled" if compiled is True else f"compiled ({compiled})"
    commits = {str(row.get("commit", environment["commit"])) for row in content["rows"]}
    return {
        "device": f"{environment['device']}, {environment['threads']} threads{where}",
        "torch": f"PyTorch {environment['torch']}",
        "precision": f"{content['settings']['precision']}, {mode}",
        "commit": ", ".join(sorted(commits)),
    }


# --- The table ---------------------------------------------------------------------------------------

HEADINGS = (
    "data set, window",
    "reducer",
    "GFLOPs, baseline → reduced",
    "FLOP ratio",
    "baseline, ms per image",
    "reduced, ms per image",
    "speed-up: median [quartiles; range]",
    "pairs",
    "efficiency",
    "published speed-up",
    "published efficiency",
)


def table(stem: str, content: dict[str, Any]) -> str:
    """Return the Markdown page of a results file."""
    said, shown = describe(content), views(content)
    lines = [
        f"<!-- Written by benchmarks/picture.py from {stem}.json: not to be edited. -->",
        f"# Efficiency: {stem}",
        "",
        f"![Speed-up against FLOP ratio](../pictures/efficiency_{stem}.svg)",
        "",
        f"- device: {said['device']}",
        f"- {said['torch']}",
        f"- commit: {said['commit']}",
        f"- precision: {said['precision']}",
        f"- {' and '.join(view.batch for view in shown)}",
        f"- input: {inputs(content['rows'])}",
        *(f"- {note}" for note in [*scaled_queries(content["rows"]), *content["notes"]]),
        "",
        "[efficiency.md](../efficiency.md) defines the columns. GFLOPs are multiply-adds of one window in",
        "the published convention. Published figures are those of Liang et al. (2022), on an unnamed GPU.",
    ]
    for view in shown:
        below = sum(point.slow or point.inefficient for point in view.points)
        lines += [
            "",
            f"## {view.batch.capitalize()}",
            "",
            f"{below} of {len(view.points)} rows are below a target ({SIGN}).",
            "",
        ]
        lines += [cells(HEADINGS), cells(["---", "---", *["---:"] * (len(HEADINGS) - 2)])]
        lines += [cells(figures(point)) for point in view.points]
    targets = ", ".join(f"{method.target:g} for {method.name}" for method in METHODS if method.target is not None)
    lines += [
        "",
        f"{SIGN} below the target: efficiency {targets}; speed-up {LEAST_SPEEDUP:g} for all. Compared before rounding.",
    ]
    return "\n".join([*lines, ""])


def cells(texts: Iterable[str]) -> str:
    """Format a row of a Markdown table."""
    return f"| {' | '.join(texts)} |"


def figures(point: Point) -> list[str]:
    """Format a row, in the order of the headings."""
    speedup, published = point.speedup, point.published
    spread = [format(speedup[name], ".3f") for name in ("median", "q1", "q3", "min", "max")]
    return [
        point.panel,
        f"{point.method.name}, {point.setting}",
        " → ".join(f"{gflops:.{1 if gflops >= 100 else 3}f}" for gflops in point.gflops),
        f"{point.ratio:.3f}",
        *(f"{ms:.4g}" if ms < 1000 else f"{ms:.0f}" for ms in point.ms),
        f"{spread[0]}{SIGN * point.slow} [{spread[1]}, {spread[2]}; {spread[3]}, {spread[4]}]",
        str(speedup["pairs"]),
        f"{point.efficiency:.3f}{SIGN * point.inefficient}",
        *((f"{published.speedup:.3f}", f"{published.efficiency:.3f}") if published else ("-", "-")),
    ]


def inputs(rows: Sequence[dict[str, Any]]) -> str:
    """Describe the images."""
    return f"crops of {', '.join(sorted({row['input']['source'] for row in rows}))}"


def scaled_queries(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Describe the factors by which ACT's queries were scaled, if any."""
    factors = [row["model"]["query_scale"] for row in rows if row["model"].get("query_scale", 1) != 1]
    return [span("queries scaled so that ACT costs what is published, by", factors)] if factors else []
