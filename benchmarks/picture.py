"""Draw and tabulate the efficiency of each row beside the published ones.

    python benchmarks/picture.py benchmarks/results/cpu_32-true.json

reads a file of ``benchmarks/rows.py`` and writes ``docs/tables/efficiency_cpu_32-true.md`` and, with matplotlib
(the ``notebooks`` extra), ``docs/pictures/efficiency_cpu_32-true.svg``. ``--check`` writes nothing and fails if a file
is not up to date.
"""

import argparse
import hashlib
import io
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from efficiency import LEAST_SPEEDUP, METHODS, Point, View, describe, table, views
from rows import PUBLISHED, ROOT

from lightning_expedite.files import write_atomically

STYLE: dict[str, Any] = {
    "font.size": 9.0,
    "svg.hashsalt": "lightning_expedite",  # else ids are random
    "lines.markeredgewidth": 1.1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
}
# Inches. A picture is at least WIDTH wide and a panel PANEL, which is also its height.
WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM, GAP = 7.6, 2.9, 0.62, 1.0, 0.36, 1.3, 0.32


def draw(content: dict[str, Any]) -> bytes:
    """Return the picture of a results file as SVG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib
    from matplotlib.figure import Figure

    made_with = f"matplotlib {matplotlib.__version__}"
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever style the user has set
        matplotlib.rcParams.update(STYLE)
        shown = views(content)
        panels = list(dict.fromkeys(point.panel for point in shown[0].points))
        width = max(WIDTH, LEFT + RIGHT + len(panels) * (PANEL + GAP) - GAP)
        height = BOTTOM + len(shown) * (TOP + PANEL)
        wide = (width - LEFT - RIGHT + GAP) / len(panels) - GAP
        figure = Figure(figsize=(width, height))
        limits = span_of([point for view in shown for point in view.points])
        for row, view in enumerate(shown):
            for column, panel in enumerate(panels):
                corner = (LEFT + column * (wide + GAP), BOTTOM + (len(shown) - 1 - row) * (TOP + PANEL))
                axes = figure.add_axes((corner[0] / width, corner[1] / height, wide / width, PANEL / height))
                title = panel if len(shown) == 1 else f"{panel}, {view.batch}"
                fill(axes, title, [point for point in view.points if point.panel == panel], limits)
                axes.tick_params(labelleft=column == 0, labelbottom=row == len(shown) - 1)
                if column == len(panels) - 1:
                    name_lines(axes)
        label(figure, caption(content, shown))
        # Without a date, the same results make the same file.
        metadata = {"Creator": made_with, "Description": fingerprint(content), "Date": None}
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata=metadata)
    return stream.getvalue()


def span_of(points: Sequence[Point]) -> tuple[float, float, float]:
    """Return the limits of the axes: maximum ratio, minimum and maximum speed-up, with a margin."""
    ratios = [point.ratio for point in points]
    speedups = [point.speedup[name] for point in points for name in ("q1", "q3")]
    for published in (point.published for point in points if point.published):
        ratios.append(published.ratio)
        speedups.append(published.speedup)
    right = 1 + 1.06 * (max(ratios) - 1)
    return right, min(*speedups, LEAST_SPEEDUP) - 0.06, max(right, max(speedups) + 0.06)


def fill(axes: Any, title: str, points: Sequence[Point], limits: tuple[float, float, float]) -> None:
    """Draw one data set: lines of equal efficiency, published rows hollow, measured rows filled."""
    right, bottom, top = limits
    axes.set(xlim=(1, right), ylim=(bottom, top))
    axes.set_title(title, fontsize=10)
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    for slope, dashes in lines():
        axes.plot((1, right), (slope, slope * right), color="0.35", linewidth=0.9, linestyle=dashes, zorder=1)
    axes.axhline(LEAST_SPEEDUP, color="0.35", linewidth=0.9, linestyle=":", zorder=1)
    for point in points:
        marker, color, middle = point.method.marker, point.method.color, point.speedup["median"]
        if point.published:
            place = (point.published.ratio, point.published.speedup)
            axes.plot((place[0], point.ratio), (place[1], middle), color=color, linewidth=0.7, alpha=0.45, zorder=2)
            axes.plot(*place, marker, color=color, markersize=5.5, markerfacecolor="white", zorder=3)
        bars = ((middle - point.speedup["q1"],), (point.speedup["q3"] - middle,))
        look = {"markeredgecolor": "white", "markeredgewidth": 0.5, "markersize": 6.5}
        axes.plot(point.ratio, middle, marker, color=color, **look, zorder=4)
        axes.errorbar(point.ratio, middle, yerr=bars, ecolor="0.1", capsize=1.8, elinewidth=0.9, zorder=5)


def lines() -> list[tuple[float, Any]]:
    """Return the lines of equal efficiency, 1 and the targets, each with its dashes."""
    targets = sorted({method.target for method in METHODS if method.target is not None}, reverse=True)
    return [(1.0, "-"), *zip(targets, ((0, (6, 2)), (0, (2, 2))), strict=True)]


def name_lines(axes: Any) -> None:
    """Label the lines beside the last panel."""
    right = axes.get_xlim()[1]
    named = [(slope * right, f"efficiency {slope:g}") for slope, _ in lines()]
    for height, text in [*named, (LEAST_SPEEDUP, f"speed-up {LEAST_SPEEDUP:g}")]:
        axes.annotate(
            text, (right, height), (4, 0), textcoords="offset points", va="center", fontsize=8, annotation_clip=False
        )


def label(figure: Any, text: str) -> None:
    """Draw axis labels, legend and caption."""
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches()
    middle = (LEFT + width - RIGHT) / 2 / width
    horizontal = "FLOP ratio, baseline / reduced (multiply-adds in the published convention)"
    figure.text(middle, (BOTTOM - 0.42) / height, horizontal, ha="center")
    above = (BOTTOM + height - TOP) / 2 / height
    figure.text(0.1 / width, above, "speed-up, baseline / reduced time", va="center", rotation=90)
    named = [(method.name, method.color, method.color, method.marker) for method in METHODS]
    handles = [
        Line2D([], [], linestyle="none", marker=marker, color=color, markerfacecolor=face, label=name)
        for name, color, face, marker in [*named, ("published", "0.35", "white", "o")]
    ]
    place = (middle, (BOTTOM - 0.5) / height)
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=place, ncols=5, frameon=False, handletextpad=0.2)
    figure.text(0.1 / width, 0.08 / height, text, fontsize=8, va="bottom", color="0.25")


def caption(content: dict[str, Any], shown: Sequence[View]) -> str:
    """Describe the device and the markers."""
    said = describe(content)
    batches = ", ".join(view.batch for view in shown)
    return (
        f"{said['device']}; {said['torch']}; {said['precision']}; {batches}.\n"
        "Filled: median and quartiles of interleaved pairs. Hollow: Liang et al. (2022), on an unnamed GPU."
    )


# --- Files -------------------------------------------------------------------------------------------


def fingerprint(content: dict[str, Any]) -> str:
    """Return a hash of everything that a picture is made from."""
    sources = json.dumps([content, json.loads(PUBLISHED.read_text())], sort_keys=True)
    return f"made from {hashlib.sha256(sources.encode()).hexdigest()}"


def same(found: bytes, made: bytes) -> bool:
    """Return whether a file is up to date; of a picture by another version of matplotlib the source is compared."""
    (was, source), (version, new) = svg_origin(found), svg_origin(made)
    return found == made or (source == new != "" and was != version)


def svg_origin(content: bytes) -> tuple[str, str]:
    """Return the matplotlib version and the source hash that an SVG file names, or empty strings."""
    text = content.decode(errors="replace")
    version, source = (re.search(pattern, text) for pattern in (r"matplotlib [0-9][^<]*", r"made from [0-9a-f]{64}"))
    return version.group() if version else "", source.group() if source else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files of each results file, or compare them; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="JSON files of benchmarks/rows.py")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder with pictures and tables (docs)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not up to date")
    known = parser.parse_args(arguments)
    made: dict[Path, bytes] = {}
    problems = []
    for results in known.results:
        content, stem = json.loads(results.read_text()), results.stem
        made[known.docs / "tables" / f"efficiency_{stem}.md"] = table(stem, content).encode()
        try:
            made[known.docs / "pictures" / f"efficiency_{stem}.svg"] = draw(content)
        except ImportError as error:  # the tables need no matplotlib
            problems.append(f"no picture of {results.name}: {error}; pip install -e '.[notebooks]'")
    if known.check:
        stale = [path for path in made if not path.exists() or not same(path.read_bytes(), made[path])]
        problems += [f"{path} is not up to date with the results: run benchmarks/picture.py" for path in stale]
    else:
        write(made)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def write(files: dict[Path, bytes]) -> None:
    """Write files, making their folders."""
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


if __name__ == "__main__":
    sys.exit(main())
