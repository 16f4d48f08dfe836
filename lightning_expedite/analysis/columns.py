"""The columns of a report's table, the same wherever it is written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..text import digits, number, signed
from .comparison import Entry, Figures, Spread, Subject, speedup_of

Reading = Callable[[Entry], float | None]


@dataclass(frozen=True)
class Column:
    """A column: ``text`` makes a cell, ``value`` is what it is sorted by and says whether there is anything to show."""

    heading: str
    text: Callable[[Entry], str]
    value: Callable[[Entry], float | str | None]
    numeric: bool = True


def columns_of(subject: Subject) -> list[Column]:
    """Give the columns that say something of at least one row: what was not measured has none."""
    several = len(subject.environments) > 1
    shown = [column for column in _COLUMNS if any(column.value(entry) is not None for entry in subject.entries)]
    return [_SETTING, *([_ENVIRONMENT] if several else []), *shown]


def csv_fields(entry: Entry) -> dict[str, float | str | None]:
    """Give a row of ``table.csv``: each figure in a field of its own, in full precision."""
    figures, published = entry.figures, entry.published
    return {
        "setting": entry.title,
        "method": entry.method,
        "environment": entry.environment,
        "mIoU": entry.miou,
        "mIoU_difference": entry.miou_difference,
        "aAcc": entry.score("aAcc"),
        "mAcc": entry.score("mAcc"),
        "gflops": figures.gflops if figures else None,
        "flop_ratio": figures.flop_ratio if figures else None,
        **_spread("latency_ms", figures.latency if figures else None),
        **_spread("speedup", figures.speedup if figures else None),
        "efficiency": figures.efficiency if figures else None,
        "throughput_images_per_s": figures.throughput if figures else None,
        "throughput_batch_size": figures.batch_size if figures else None,
        "peak_memory_mib": figures.peak_memory_mib if figures else None,
        "published_mIoU": published.miou if published else None,
        "mIoU_minus_published": published_difference(entry, _PUBLISHED_MIOU),
        "published_gflops": published.gflops if published else None,
        "gflops_minus_published": published_difference(entry, _PUBLISHED_GFLOPS),
        "published_speedup": published.speedup if published else None,
        "speedup_minus_published": published_difference(entry, _PUBLISHED_SPEEDUP),
    }


def spread_text(spread: Spread | None, show: Callable[[float | None], str]) -> str:
    """Show a median with its quartiles."""
    return show(None) if spread is None else f"{show(spread.median)} [{show(spread.low)}, {show(spread.high)}]"


def _own_speedup(entry: Entry) -> float | None:
    return speedup_of(entry.figures)


Comparison = tuple[Reading, Reading]
"""A published figure and what is measured here."""

_PUBLISHED_MIOU: Comparison = (
    lambda entry: entry.published.miou if entry.published else None,
    lambda entry: entry.miou,
)
_PUBLISHED_GFLOPS: Comparison = (
    lambda entry: entry.published.gflops if entry.published else None,
    lambda entry: entry.figures.gflops if entry.figures else None,
)
_PUBLISHED_SPEEDUP: Comparison = (lambda entry: entry.published.speedup if entry.published else None, _own_speedup)


def published_difference(entry: Entry, comparison: Comparison) -> float | None:
    """Give what is measured here minus what is published."""
    published, own = (read(entry) for read in comparison)
    return None if published is None or own is None else own - published


def _spread(name: str, spread: Spread | None) -> dict[str, float | None]:
    ends = spread or (None, None, None)
    return {name: ends[0], f"{name}_q1": ends[1], f"{name}_q3": ends[2]}


def _two(value: float | None) -> str:
    return number(value, ".2f")


def _of_figures(read: Callable[[Figures], float | None]) -> Reading:
    return lambda entry: None if entry.figures is None else read(entry.figures)


def _plain_column(heading: str, read: Reading, show: Callable[[float | None], str]) -> Column:
    return Column(heading, lambda entry: show(read(entry)), read)


def _published_column(heading: str, comparison: Comparison, show: Callable[[float | None], str], form: str) -> Column:
    def text(entry: Entry) -> str:
        published, difference = comparison[0](entry), published_difference(entry, comparison)
        return show(published) if difference is None else f"{show(published)} ({signed(difference, form)})"

    return Column(heading, text, comparison[0])


def _latency_text(entry: Entry) -> str:
    return spread_text(entry.figures.latency if entry.figures else None, digits)


def _speedup_text(entry: Entry) -> str:
    if entry.figures is not None and entry.figures.speedup is None:
        return "1"
    return spread_text(entry.figures.speedup if entry.figures else None, _two)


def _throughput_text(entry: Entry) -> str:
    return digits(None) if entry.figures is None else f"{digits(entry.figures.throughput)} ({entry.figures.batch_size})"


_SETTING = Column("setting", lambda entry: entry.title, lambda entry: entry.title, numeric=False)
_ENVIRONMENT = Column(
    "timed on", lambda entry: entry.environment or "–", lambda entry: entry.environment, numeric=False
)
_COLUMNS: Sequence[Column] = (
    _plain_column("mIoU, %", lambda entry: entry.miou, _two),
    _plain_column("difference, points", lambda entry: entry.miou_difference, signed),
    _plain_column("aAcc, %", lambda entry: entry.score("aAcc"), _two),
    _plain_column("mAcc, %", lambda entry: entry.score("mAcc"), _two),
    _plain_column("GFLOPs", _of_figures(lambda figures: figures.gflops), digits),
    _plain_column("FLOP ratio", _of_figures(lambda figures: figures.flop_ratio), _two),
    Column("latency, ms", _latency_text, _of_figures(lambda figures: figures.latency.median)),
    Column("speed-up", _speedup_text, _own_speedup),
    _plain_column("efficiency", _of_figures(lambda figures: figures.efficiency), _two),
    Column("images/s (batch)", _throughput_text, _of_figures(lambda figures: figures.throughput)),
    _plain_column("peak memory, MiB", _of_figures(lambda figures: figures.peak_memory_mib), digits),
    _published_column("published mIoU (difference)", _PUBLISHED_MIOU, _two, ".2f"),
    _published_column("published GFLOPs (difference)", _PUBLISHED_GFLOPS, digits, ".1f"),
    _published_column("published speed-up (difference)", _PUBLISHED_SPEEDUP, _two, ".2f"),
)

LEGEND = (
    "Difference: mIoU minus that of the unreduced model. GFLOPs: multiply-adds of one window, published convention; "
    "FLOP ratio: unreduced divided by reduced. Latency: of one window at batch 1, median [quartiles]. Speed-up: median "
    "[quartiles] of the ratios within pairs of passes timed in turns. Efficiency: speed-up divided by FLOP ratio. "
    "Images/s: at the batch beside it. Peak memory: at batch 1."
)
PUBLISHED_LEGEND = (
    "Published figures, and measured minus published: {source}. Published speed-ups are of frames per second."
)
