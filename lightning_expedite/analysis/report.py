"""A report: results side by side as a page, Markdown, CSV and LaTeX."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..text import MISSING, markdown, plain, signed
from .cautions import Missing, cautions, missing, provenances, subjects_of
from .front import answers, views
from .page import page
from .results import read_results
from .tables import columns_of, csv_class_table, csv_table, iou_table, latex_table, legend, two

MAX_COLUMNS = 6  # settings in the Markdown table of classes


@dataclass(frozen=True)
class Report:
    """A table of `read_results`, how its runs differ, and which results are missing."""

    table: pd.DataFrame
    cautions: list[str]
    missing: list[Missing]


def make_report(paths: Sequence[Path]) -> Report:
    """Read results and compare them; see `read_results`."""
    table = read_results(paths)
    return Report(table, cautions(table), list(missing(table)))


def report_files(report: Report) -> dict[str, bytes]:
    """Return the content of a report's files by their names."""
    table, subjects = report.table, subjects_of(report.table)
    classes = {subject: shown for subject, part in subjects if not (shown := iou_table(part)).empty}
    texts = {
        "table.csv": csv_table(table),
        "table.tex": "\n".join(latex_table(subject, part) for subject, part in subjects),
        "report.md": markdown_report(report, classes),
        "report.html": page(table, classes, cautions=report.cautions, missing=report.missing),
        **({"per_class.csv": csv_class_table(classes)} if classes else {}),
    }
    return {name: text.encode() for name, text in texts.items()}


def markdown_report(report: Report, classes: Mapping[str, pd.DataFrame]) -> str:
    """Return the report in Markdown."""
    lines = ["# Report", ""]
    lines += _section("Before you compare", [f"- {markdown(text)}" for text in report.cautions])
    commands = [(markdown(one.what), plain(one.command, 1000)) for one in report.missing]
    lines += _section("What is missing", [f"- {what}. To make it:\n\n      {command}\n" for what, command in commands])
    for subject, table in subjects_of(report.table):
        lines += [f"## {markdown(subject)}", ""]
        for view in views(table):
            if sentences := [f"- {markdown(text)}" for text in answers(view)]:
                lines += [f"{markdown(view.environment)}:", "", *sentences, ""]
        columns = columns_of(table)
        rows = [[column.text(row) for column in columns] for _, row in table.iterrows()]
        lines += [*_table([column.heading for column in columns], rows), ""]
        if subject in classes:
            shown = classes[subject].iloc[:, : 2 + MAX_COLUMNS]
            kinds: list[Callable[[Any], str]] = [str, two, *[signed] * (shown.shape[1] - 2)]
            cells = [
                [MISSING if pd.isna(value) else show(value) for show, value in zip(kinds, row, strict=True)]
                for row in shown.itertuples(index=False)
            ]
            text = "IoU per class: in percent for the baseline, difference from it in points for the others. All are in"
            lines += [f"{text} `per_class.csv`.", "", *_table([*shown.columns], cells), ""]
    lines += _section("Columns", [markdown(text) for text in legend(report.table)])
    facts = [(one, "; ".join(f"{name} {value}" for name, value in one.facts)) for one in provenances(report.table)]
    computed = [f"- {one.kind} of {markdown(', '.join(one.settings))}: {markdown(text)}" for one, text in facts]
    return "\n".join([*lines, *_section("Computed with", computed)])


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""] if lines else []


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table whose first column is text."""
    cells = [[*map(markdown, row)] for row in (headings, *rows)]
    cells.insert(1, ["---", *["---:"] * (len(headings) - 1)])
    return [f"| {' | '.join(row)} |" for row in cells]
