"""Write ``docs/reproduce.md``: the published rows, how to run them, and what of them this project found again.

    python docs/make_tables.py

reads the published rows, their configs and ``benchmarks/results/*_*.json``, and counts the FLOPs of each row anew, on
shapes alone. ``--check`` writes nothing and fails where the page is not what would be written.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from efficiency import DATA_SETS, cells  # noqa: E402
from rows import PUBLISHED, WINDOWS, config_of  # noqa: E402

from lightning_expedite import reducers  # noqa: E402
from lightning_expedite.benchmarking import count_multiply_adds  # noqa: E402
from lightning_expedite.files import write_atomically  # noqa: E402
from lightning_expedite.models.segmenter import Segmenter  # noqa: E402
from lightning_expedite.models.segmenter.weights import KNOWN_WEIGHTS  # noqa: E402

PAGE = ROOT / "docs" / "reproduce.md"
RESULTS = ROOT / "benchmarks" / "results"
EXACT = 0.05  # percent: what is published with two digits after the point cannot be met more closely on all rows
TITLES = {"none": "no reducer", "ours": "TokenClustering", "evit": "EViT", "tome": "ToMe", "act": "ACT"}


@dataclass(frozen=True)
class Row:
    """A published row, with what was counted and measured of it."""

    data_set: str  # as the published table's file names it
    published: Mapping[str, Any]
    unreduced: Mapping[str, Any]  # the published row without a reducer
    measured: Mapping[str, Mapping[str, Any]]  # speed-up by the heading of a results file

    @property
    def config(self) -> str:
        """Name of the row's config."""
        return name_of(self.data_set, self.published)

    @property
    def command(self) -> str:
        """What evaluates the row."""
        return f"python -m lightning_expedite test --config configs/{self.config}.yaml"

    @property
    def setting(self) -> str:
        """The reducer and its settings as published, in words."""
        method, said = self.published["method"], self.published["setting"]
        words = {
            "none": lambda: "",
            "ours": lambda: f", {' x '.join(map(str, said['clusters']))} after layer {said['alpha']}",
            "evit": lambda: f", {said['keep_rate']:.0%} kept",
            "tome": lambda: f", ratio {said['ratio']:g}",
            "act": lambda: f", {said['query_hashes']} hashes",
        }
        return TITLES[method] + words[method]()

    @cached_property
    def counted(self) -> float | None:
        """Multiply-adds of one window in 10^9, in the published convention; ``None`` where content decides."""
        return count(read_config(ROOT / "configs" / f"{self.config}.yaml"))

    @property
    def difference(self) -> float | None:
        """Percent by which the count is above what is published."""
        if self.counted is None:
            return None
        return round(100 * (self.counted / self.published["gflops"] - 1), 2) + 0.0  # no negative zero


# --- From the files to rows --------------------------------------------------------------------------


def name_of(data_set: str, row: Mapping[str, Any]) -> str:
    """Give the name of a row's config, also of the row without a reducer."""
    return f"{WINDOWS[data_set][0]}_none" if row["method"] == "none" else config_of(data_set, dict(row))


def read_rows(results: Sequence[Path]) -> Iterator[Row]:
    """Bring the published rows together with what results files say of them."""
    speedups: dict[str, dict[str, Mapping[str, Any]]] = {}
    for path in results:
        content = json.loads(path.read_text(encoding="utf-8"))
        for row in content["rows"]:
            speedups.setdefault(row["config"], {})[heading(content)] = row["latency"]["speedup"]
    for data_set, rows in json.loads(PUBLISHED.read_text(encoding="utf-8"))["rows"].items():
        (unreduced,) = (row for row in rows if row["method"] == "none")
        for row in rows:
            yield Row(data_set, row, unreduced, speedups.get(name_of(data_set, row), {}))


def heading(content: Mapping[str, Any]) -> str:
    """Say on what a results file was measured."""
    environment = content["environment"]
    device = f"CPU, {environment['threads']} threads" if environment["device_type"] == "cpu" else environment["device"]
    return f"{device}, {content['settings']['precision']}"


def read_config(path: Path) -> dict[str, Any]:
    """Read a config and what it builds on."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    merged: dict[str, Any] = {}
    for base in content.pop("base", []):
        merged = merge(merged, read_config(path.parent / base))
    return merge(merged, content)


def merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Put a second config's settings over a first's."""
    both = {key: merge(first[key], second[key]) for key in first.keys() & second.keys() if isinstance(first[key], dict)}
    return {**first, **second, **both}


def count(config: Mapping[str, Any]) -> float | None:
    """Count a config's multiply-adds for one window, in 10^9, without computing; ``None`` where content decides."""
    given = config["model"].get("reducer")
    reducer = getattr(reducers, given["class_path"])(**given["init_args"]) if given else None
    if reducer is not None and reducer.shapes_depend_on_content:
        return None
    segmenter = without_weights(config["model"]["checkpoint"])
    segmenter.reducer = reducer
    images = torch.empty(1, 3, *segmenter.architecture.image_size, device="meta")
    return count_multiply_adds(segmenter, images) / 1e9


@cache
def without_weights(checkpoint: str) -> Segmenter:
    """Make a known model that has shapes alone."""
    architecture = KNOWN_WEIGHTS[checkpoint].architecture
    assert architecture is not None, "the models of the published rows are known"
    with torch.device("meta"):
        return Segmenter(architecture)


# --- The page ----------------------------------------------------------------------------------------

INTRODUCTION = """\
<!-- Written by docs/make_tables.py: not to be edited. -->
# Reproduce the paper

Liang et al. (2022) publish 39 rows for Segmenter ViT-L/16: 13 for each of three data sets. This page lists all of
them, with the command that evaluates each, what is published, and what of it this project found again. It is made by
`docs/make_tables.py` from the published rows (`tests/data/published.json`), the configs and the committed results
(`benchmarks/results`), and a test compares it with them.

The commands need the [data set](how-to/own-data.md#the-published-data-sets) and the
[weights](how-to/own-weights.md#known-names). They look for the data below `data/`; `--data.root FOLDER` names another
place. GFLOPs are 10⁹ multiply-adds of one window in the [published convention](efficiency.md#what-is-counted).

## States

| state | meaning |
| --- | --- |
| not reproduced | the mIoU was not measured: neither the published weights nor the data set were at hand |
| counted, exact | the published GFLOPs are counted here too, within {exact} % |
| counted, differs | other GFLOPs are counted here than the table says, by the difference that is listed |
| depends on content | what ACT costs follows from image and weights: nothing can be counted without them |

A speed-up is the median and, in brackets, the quartiles of pairs timed in turns, at batch 1. It was measured with
random weights, which are as fast as trained ones. ACT's queries were scaled until it cost the published GFLOPs.

"""

SUMMARY = """\
## Summary

- mIoU: none of the {rows} rows reproduced.
- GFLOPs: {counted} of {rows} rows counted, {exact_rows} of them exact; the largest difference is {largest:+.1f} %
  (`{where}`).
- Speed-up: {timed} of {reduced} reduced rows timed.

The counts are those of the reference implementation's own counter, row by row (`tests/test_flops.py`), also where the
published table differs: there the published figure does not follow from the published code.
[From saved FLOPs to saved time](efficiency.md) says how speed-ups are measured and what they can be compared with:
the published ones were measured on a GPU that is not named.
"""


def page(rows: Sequence[Row]) -> str:
    """Make the whole page."""
    parts = [INTRODUCTION.format(exact=EXACT), summary(rows)]
    places = list(dict.fromkeys(place for row in rows for place in row.measured))
    for data_set in dict.fromkeys(row.data_set for row in rows):
        parts.append(section([row for row in rows if row.data_set == data_set], places))
    return "".join(parts)


def summary(rows: Sequence[Row]) -> str:
    """Say how much was found again."""
    counted = [row for row in rows if row.difference is not None]
    largest = max(counted, key=lambda row: abs(row.difference or 0))
    return SUMMARY.format(
        rows=len(rows),
        counted=len(counted),
        exact_rows=sum(state(row) == "counted, exact" for row in counted),
        largest=largest.difference,
        where=largest.config,
        timed=sum(bool(row.measured) for row in rows),
        reduced=sum(row.published["method"] != "none" for row in rows),
    )


def state(row: Row) -> str:
    """Give the state of a row's GFLOPs."""
    if row.difference is None:
        return "depends on content"
    return "counted, exact" if abs(row.difference) <= EXACT else "counted, differs"


def section(rows: Sequence[Row], places: Sequence[str]) -> str:
    """Make a data set's two tables."""
    scores = ["reducer", "command", "published mIoU %", "mIoU here"]
    costs = ["reducer", "published GFLOPs", "counted", "difference %", "state", "published speed-up", *places]
    title = DATA_SETS[rows[0].config.partition("_")[0]]
    lines = ["", f"## {title}", "", "### Scores", "", cells(scores), cells(["---", "---", "---:", "---"])]
    lines += [
        cells([row.setting, f"`{row.command}`", f"{row.published['mIoU']:.2f}", "not reproduced"]) for row in rows
    ]
    alignment = ["---", *["---:"] * 3, "---", *["---:"] * (len(costs) - 5)]
    lines += ["", "### FLOPs and speed", "", cells(costs), cells(alignment)]
    lines += [cells(cost(row, places)) for row in rows]
    return "\n".join([*lines, ""])


def cost(row: Row, places: Sequence[str]) -> list[str]:
    """Show what a row costs, in the order of the headings."""
    speedup = row.published["fps"] / row.unreduced["fps"]
    return [
        row.setting,
        f"{row.published['gflops']:.2f}",
        "-" if row.counted is None else f"{row.counted:.2f}",
        "-" if row.difference is None else f"{row.difference:+.2f}",
        state(row),
        "-" if row.published["method"] == "none" else f"{speedup:.2f}",
        *(timed(row.measured.get(place)) for place in places),
    ]


def timed(speedup: Mapping[str, Any] | None) -> str:
    """Show a speed-up with its quartiles."""
    return "-" if speedup is None else "{median:.2f} [{q1:.2f}, {q3:.2f}]".format(**speedup)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or compare it; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", nargs="*", type=Path, help="files of rows.py (all in benchmarks/results)")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page (docs/reproduce.md)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is not as it would be")
    known = parser.parse_args(arguments)
    made = page(list(read_rows(sorted(RESULTS.glob("*_*.json")) if known.results is None else known.results)))
    if not known.check:
        write_atomically(known.page, made.encode())
    elif not known.page.exists() or known.page.read_text(encoding="utf-8") != made:
        print(f"error: {known.page} is not what docs/make_tables.py makes; run it", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
