"""The tables of a report: settings and classes, as text for people, CSV and LaTeX."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pandas as pd

from ..text import MISSING, csv_cell, digits, latex, plain, signed
from .results import NUMBERS, published_tables

_LEGEND = (
    "Difference: mIoU minus that of the baseline, the model without a reducer. GFLOPs: multiply-adds of one window, "
    "published convention; FLOP ratio: baseline divided by reduced. Latency: of one window at batch 1, median "
    "[quartiles]. Speed-up: median [quartiles] of the ratios within pairs of passes timed alternately. Efficiency: "
    "speed-up divided by FLOP ratio. Images/s: at the batch size in brackets. Peak memory: at batch 1."
)
_PUBLISHED_LEGEND = "Published figures (measured minus published): {}. Published speed-ups are of frames per second."


class Column(NamedTuple):
    """A column of the report: its heading, and the column of the results table that it shows and is sorted by."""

    heading: str
    key: str
    show: Callable[[Any], str] = str
    measured: str | None = None  # of a published figure, what it is compared with
    numeric: bool = True

    def text(self, row: "pd.Series[Any]") -> str:
        """Return a cell, with quartiles, batch size or difference in brackets."""
        value = row[self.key]
        if pd.isna(value):
            return MISSING
        text = self.show(value)
        if pd.notna(row.get(f"{self.key}_q1")):
            return f"{text} [{self.show(row[f'{self.key}_q1'])}, {self.show(row[f'{self.key}_q3'])}]"
        if self.measured and pd.notna(row[self.measured]):
            return f"{text} ({signed(row[self.measured] - value)})"
        return f"{text} ({row['throughput_batch_size']})" if self.key == "throughput_images_per_s" else text


def two(value: float) -> str:
    """Show two digits after the point."""
    return f"{value:.2f}"


COLUMNS = (
    Column("setting", "setting", numeric=False),
    Column("timed on", "environment", numeric=False),
    Column("mIoU, %", "mIoU", two),
    Column("difference, points", "mIoU_difference", signed),
    Column("aAcc, %", "aAcc", two),
    Column("mAcc, %", "mAcc", two),
    Column("GFLOPs", "gflops", digits),
    Column("FLOP ratio", "flop_ratio", two),
    Column("latency, ms", "latency_ms", digits),
    Column("speed-up", "speedup", two),
    Column("efficiency", "efficiency", two),
    Column("images/s (batch)", "throughput_images_per_s", digits),
    Column("peak memory, MiB", "peak_memory_mib", digits),
    Column("published mIoU (difference)", "published_mIoU", two, "mIoU"),
    Column("published GFLOPs (difference)", "published_gflops", digits, "gflops"),
    Column("published speed-up (difference)", "published_speedup", two, "speedup"),
)


def columns_of(table: pd.DataFrame) -> list[Column]:
    """Return the columns with a value in at least one row; the environment only if there are several."""
    shown = [column for column in COLUMNS if table[column.key].notna().any()]
    return [column for column in shown if column.key != "environment" or table["environment"].nunique() > 1]


def legend(table: pd.DataFrame) -> list[str]:
    """Return what the columns mean."""
    published = table["published_mIoU"].notna().any()
    return [_LEGEND, *([_PUBLISHED_LEGEND.format(published_tables()["source"])] if published else [])]


def iou_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return IoU per class of a subject.

    Returns:
        Columns ``class``, ``baseline`` (IoU in percent) and one per setting (IoU minus the baseline's, in points),
        each score once however often it was timed; empty without a baseline or a setting with its classes.
    """
    scored = table.dropna(subset="evaluation").drop_duplicates("evaluation")
    baselines = list(scored[scored["is_baseline"]]["evaluation"])
    reduced = zip(scored["setting"], scored["evaluation"], scored["class_differences"], strict=True)
    columns = {name: found for name, one, found in reduced if found and one.classes == baselines[0].classes}
    if not columns:
        return pd.DataFrame()
    known = [(plain(score.name, 40), score.IoU) for score in baselines[0].per_class]
    return pd.DataFrame(known, columns=["class", "baseline"]).assign(**columns)


def csv_table(table: pd.DataFrame) -> str:
    """Return all settings as comma-separated values in full precision; columns without any value are left out."""
    pairs = ("mIoU", "gflops", "speedup")
    table = table.assign(**{f"{name}_minus_published": table[name] - table[f"published_{name}"] for name in pairs})
    names = ("checkpoint", "data", "setting", "method", "environment", "compared_images", "obstacle", *NUMBERS)
    more = ("throughput_batch_size", *(f"{name}_minus_published" for name in pairs))
    shown = table[[name for name in (*names, *more) if table[name].notna().any()]]
    return str(shown.map(csv_cell).to_csv(index=False))


def csv_class_table(classes: Mapping[str, pd.DataFrame]) -> str:
    """Return every class of every setting as comma-separated values, one line each."""
    names = {"baseline": "IoU_baseline", "variable": "setting", "value": "IoU_difference"}
    parts = [
        table.melt(["class", "baseline"]).rename(columns=names).assign(subject=subject)
        for subject, table in classes.items()
    ]
    order = ["subject", "setting", "class", "IoU_baseline", "IoU_difference"]
    return str(pd.concat(parts)[order].map(csv_cell).to_csv(index=False))


def latex_table(subject: str, table: pd.DataFrame) -> str:
    r"""Return a table to be read by ``\input``, which needs the packages ``booktabs`` and ``textcomp``."""
    columns = columns_of(table)
    cells = {latex(column.heading): [latex(column.text(row)) for _, row in table.iterrows()] for column in columns}
    alignment = "".join("r" if column.numeric else "l" for column in columns)
    text = pd.DataFrame(cells).to_latex(index=False, column_format=alignment, caption=latex(subject))
    # A table of all columns is wide: small type, on both columns of a page.
    return (
        str(text)
        .replace("{table}", "{table*}")
        .replace("\\begin{tabular}", "\\centering\\scriptsize\n\\begin{tabular}")
    )
