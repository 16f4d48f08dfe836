"""A report: what results say when they are put side by side, and the files that show it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..text import markdown, plain
from .cautions import Missing, cautions, missing
from .comparison import Subject, compare
from .figures_class import SETTINGS_AT_MOST, class_picture
from .figures_front import front_picture
from .front import AXES, View, answers, views
from .page import Picture, page
from .per_class import ClassTable, class_table, telling
from .provenance import Provenance, provenances
from .runs import read_failures, read_runs
from .text_tables import (
    COLUMNS_AT_MOST,
    csv_class_table,
    csv_table,
    latex_tables,
    legend,
    markdown_class_table,
    markdown_table,
)

MARKDOWN_FILE, PAGE_FILE = "report.md", "report.html"


@dataclass(frozen=True)
class Report:
    """Everything that a report says."""

    subjects: list[Subject]
    views: list[View]
    classes: list[ClassTable]
    cautions: list[str]
    missing: list[Missing]
    provenances: list[Provenance]


def make_report(paths: Sequence[Path]) -> Report:
    """Read results and compare them.

    Args:
        paths: As `read_runs` takes them.

    Raises:
        DataError: A path does not exist, a file is damaged, or there is no result in any.
    """
    subjects = compare(read_runs(paths))
    tables = [class_table(subject) for subject in subjects]
    return Report(
        subjects,
        views(subjects),
        [table for table in tables if table is not None],
        cautions(subjects, read_failures(paths)),
        missing(subjects),
        provenances(subjects),
    )


def report_files(report: Report) -> dict[str, bytes]:
    """Make a report's files.

    Returns:
        The content of each, by its name.
    """
    pictures = list(draw(report))
    files = {f"{picture.name}{suffix}": content for picture in pictures for suffix, content in picture.files.items()}
    files |= {"table.csv": csv_table(report.subjects).encode(), "table.tex": latex_tables(report.subjects).encode()}
    if report.classes:
        files["per_class.csv"] = csv_class_table(report.classes).encode()
    files[MARKDOWN_FILE] = markdown_report(report, pictures).encode()
    files[PAGE_FILE] = page(
        report.subjects,
        report.views,
        report.classes,
        pictures,
        report.provenances,
        report.cautions,
        report.missing,
    ).encode()
    return files


def draw(report: Report) -> Iterator[Picture]:
    """Draw the fronts of every view, and the classes of every subject."""
    for number, view in enumerate(report.views, start=1):
        for axis in AXES:
            if view.points(axis):
                name = f"front_{axis.key}{_suffix(number)}"
                caption = f"mIoU against {axis.title(view.entries)}"
                yield Picture(name, view.subject, caption, front_picture(view, axis))
    for number, table in enumerate(report.classes, start=1):
        shown = table.chosen(telling(table, SETTINGS_AT_MOST))
        caption = "Gains and losses of each class" + _of_all(len(shown.rows), len(table.rows))
        yield Picture(f"per_class{_suffix(number)}", table.subject, caption, class_picture(shown))


def markdown_report(report: Report, pictures: Sequence[Picture]) -> str:
    """Write the report in Markdown, beside whose file the pictures lie."""
    lines = ["# Report", ""]
    lines += _section("Before you compare", [f"- {markdown(text)}" for text in report.cautions])
    lines += _section("What is missing", _missing_lines(report.missing))
    for subject in report.subjects:
        lines += [f"## {markdown(subject.title)}", ""]
        for view in report.views:
            if view.subject is subject and (sentences := answers(view)):
                lines += [f"{markdown(view.environment)}:", "", *(f"- {markdown(text)}" for text in sentences), ""]
        lines += [markdown_table(subject), ""]
        for picture in pictures:
            if picture.subject is subject:
                lines += [f"![{markdown(picture.caption)}]({picture.name}.png)", ""]
        for table in report.classes:
            if table.subject is subject:
                shown = table.chosen(telling(table, COLUMNS_AT_MOST))
                of = _of_all(len(shown.rows), len(table.rows))
                text = (
                    f"IoU of each class minus that of the unreduced model, in points{of}. All are in `per_class.csv`."
                )
                lines += [text, "", markdown_class_table(shown), ""]
    lines += _section("Columns", [markdown(text) for text in legend(report.subjects)])
    lines += _section("Computed with", [line for one in report.provenances for line in _provenance_lines(one)])
    return "\n".join(lines)


def _suffix(number: int) -> str:
    return "" if number == 1 else f"_{number}"


def _of_all(shown: int, known: int) -> str:
    return "" if shown == known else f", of {shown} of {known} settings: those on the front of latency first"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    content = list(lines)
    return [f"## {title}", "", *content, ""] if content else []


def _missing_lines(missing: Sequence[Missing]) -> list[str]:
    return [
        line
        for one in missing
        for line in (f"- {markdown(one.what)}. This brings it:", "", f"      {plain(one.command, 1000)}")
    ]


def _provenance_lines(one: Provenance) -> list[str]:
    facts = "; ".join(f"{name} {value}" for name, value in one.facts)
    return [f"- {one.kind} of {markdown(', '.join(one.runs))}: {markdown(facts)}"]
