"""A report as text: Markdown, comma-separated values and LaTeX."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from ..text import csv_cell, latex, markdown, markdown_row, number, signed
from .columns import LEGEND, PUBLISHED_LEGEND, columns_of, csv_fields
from .comparison import Subject
from .per_class import ClassTable
from .published import published_source

COLUMNS_AT_MOST = 6


def markdown_table(subject: Subject) -> str:
    """Make the table of a subject's settings, one row each."""
    columns = columns_of(subject)
    lines = [
        markdown_row(markdown(column.heading) for column in columns),
        markdown_row("---:" if column.numeric else "---" for column in columns),
        *(markdown_row(markdown(column.text(entry)) for column in columns) for entry in subject.entries),
    ]
    return "\n".join(lines)


def markdown_class_table(table: ClassTable) -> str:
    """Make the table of the classes, one row each; at most `COLUMNS_AT_MOST` settings stay legible."""
    titles = [entry.title for entry, _ in table.rows]
    lines = [
        markdown_row(["class", "unreduced IoU, %", *map(markdown, titles)]),
        markdown_row(["---", *["---:"] * (1 + len(titles))]),
    ]
    for index, name in enumerate(table.classes):
        differences = (signed(row[index]) for _, row in table.rows)
        lines.append(markdown_row([markdown(name), number(table.unreduced[index], ".2f"), *differences]))
    return "\n".join(lines)


def legend(subjects: Sequence[Subject]) -> list[str]:
    """Say what the columns are."""
    published = any(entry.published for subject in subjects for entry in subject.entries)
    return [LEGEND, *([PUBLISHED_LEGEND.format(source=published_source())] if published else [])]


def csv_table(subjects: Sequence[Subject]) -> str:
    """Give all settings of all subjects as comma-separated values; fields without any value are left out."""
    rows = [
        {"checkpoint": subject.checkpoint, "data": subject.data, **csv_fields(entry)}
        for subject in subjects
        for entry in subject.entries
    ]
    fields = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    return _csv(fields, rows)


def csv_class_table(tables: Sequence[ClassTable]) -> str:
    """Give every class of every setting as comma-separated values, one line each."""
    fields = ["checkpoint", "data", "setting", "class", "IoU_unreduced", "IoU_difference"]
    rows = [
        dict(
            zip(
                fields,
                (table.subject.checkpoint, table.subject.data, entry.title, name, table.unreduced[index], row[index]),
                strict=True,
            )
        )
        for table in tables
        for entry, row in table.rows
        for index, name in enumerate(table.classes)
    ]
    return _csv(fields, rows)


def latex_tables(subjects: Sequence[Subject]) -> str:
    r"""Make one table for each subject, to be read by ``\input``.

    Returns:
        LaTeX that needs the packages ``booktabs`` and ``textcomp``.
    """
    lines = ["% \\usepackage{booktabs,textcomp}; wide: best on a landscape page"]
    for subject in subjects:
        columns = columns_of(subject)
        lines += [
            r"\begin{table*}",
            r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{latex(subject.title)}}}",
            rf"\begin{{tabular}}{{{''.join('r' if column.numeric else 'l' for column in columns)}}}",
            r"\toprule",
            _latex_row(_latex_heading(column.heading) for column in columns),
            r"\midrule",
            *(_latex_row(latex(column.text(entry)) for column in columns) for entry in subject.entries),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
        ]
    return "\n".join([*lines, ""])


def _latex_row(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _latex_heading(text: str) -> str:
    """Set a long heading in two lines: words behind a comma or a bracket below."""
    above, separator, below = text.partition(", ") if ", " in text else text.partition(" (")
    if not separator:
        return latex(text)
    below = f"({below}" if separator == " (" else below
    return rf"\begin{{tabular}}{{@{{}}c@{{}}}}{latex(above)}\\{latex(below)}\end{{tabular}}"


def _csv(fields: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([csv_cell(row[name]) for name in fields] for row in rows)
    return text.getvalue()
