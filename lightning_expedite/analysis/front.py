"""Which settings are worth their price: Pareto fronts of mIoU against what a setting costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..text import digits, signed
from .comparison import Entry, Subject, speedup_of

LIMITS = (0.5, 1.0, 2.0)
"""Losses of mIoU, in points, for which a report names the fastest setting."""


@dataclass(frozen=True)
class Axis:
    """What a setting costs, or with ``more_is_better`` what it brings."""

    key: str
    name: str
    unit: str
    value: Callable[[Entry], float | None]
    convention: Callable[[Sequence[Entry]], str]
    more_is_better: bool = False

    def title(self, entries: Sequence[Entry]) -> str:
        """Name the axis, with unit and convention."""
        return f"{self.name}, {self.unit} ({self.convention(entries)})"


@dataclass(frozen=True)
class View:
    """Settings whose prices are comparable: of one subject, timed in one environment, and scored."""

    subject: Subject
    environment: str
    entries: list[Entry]

    def points(self, axis: Axis) -> list[tuple[Entry, float, float]]:
        """Give the settings that have a place: each with its price or gain, and its mIoU in percent."""
        return [
            (entry, value, entry.miou)
            for entry in self.entries
            if (value := axis.value(entry)) is not None and entry.miou is not None
        ]

    def front(self, axis: Axis) -> list[tuple[Entry, float, float]]:
        """Give those of the points that no other beats, from the lowest value to the highest."""
        points = self.points(axis)
        places = [(-value if axis.more_is_better else value, miou) for _, value, miou in points]
        return sorted((points[index] for index in pareto_front(places)), key=lambda point: point[1])


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Find the points that no other beats: by less cost without less score, or by more score without more cost.

    Args:
        points: Cost and score of each.

    Returns:
        Their indices, by rising cost. Of points at the same place all are in it or none.
    """
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1]))
    front: list[int] = []
    for index in order:
        if not front or points[index][1] > points[front[-1]][1] or points[index] == points[front[-1]]:
            front.append(index)
    return front


def views(subjects: Sequence[Subject]) -> list[View]:
    """Part the subjects by environment; settings without scores or times take no part."""
    parts = [
        View(
            subject,
            environment,
            [entry for entry in subject.entries if entry.environment == environment and entry.miou is not None],
        )
        for subject in subjects
        for environment in subject.environments
    ]
    return [view for view in parts if view.entries]


def answers(view: View) -> list[str]:
    """Name the fastest setting for each of some losses of mIoU; losses of the same setting share a sentence.

    Returns:
        Sentences; none where the unreduced model has no score.
    """
    known = [entry for entry in view.entries if entry.miou_difference is not None]
    if not known:
        return []
    best = {limit: fastest(known, limit) for limit in LIMITS}
    together = [[limit for limit in LIMITS if best[limit] is entry] for entry in dict.fromkeys(best.values())]
    return [_sentence(limits, best[limits[0]]) for limits in together]


def _sentence(limits: Sequence[float], best: Entry | None) -> str:
    *others, last = (f"{limit:g}" for limit in limits)
    either = f"{', '.join(others)} or {last}" if others else last
    least = f"At most {either} point{'' if either == '1' else 's'} of mIoU lost"
    if best is None:
        return f"{least}: no setting is faster than the unreduced model."
    assert best.figures is not None
    assert best.figures.speedup is not None
    speedup = best.figures.speedup
    return (
        f"{least}: {best.title}, {speedup.median:.2f} times as fast (quartiles {speedup.low:.2f} to {speedup.high:.2f})"
        f", mIoU {signed(best.miou_difference)} points, {digits(best.figures.latency.median)} ms."
    )


def fastest(entries: Sequence[Entry], limit: float) -> Entry | None:
    """Give the setting with the largest speed-up, above 1, that loses at most ``limit`` points of mIoU."""
    fast = {
        entry.figures.speedup.median: entry
        for entry in reversed(entries)
        if entry.figures is not None
        and entry.figures.speedup is not None
        and entry.figures.speedup.median > 1
        and entry.miou_difference is not None
        and entry.miou_difference >= -limit
    }
    return fast[max(fast)] if fast else None


def _where(entries: Sequence[Entry]) -> str:
    return next((entry.figures.environment for entry in entries if entry.figures), "")


def _batches(entries: Sequence[Entry]) -> str:
    sizes = sorted({entry.figures.batch_size for entry in entries if entry.figures})
    ends = sorted({sizes[0], sizes[-1]}) if sizes else []
    return f"batch {' to '.join(map(str, ends))}"


AXES = (
    Axis(
        "latency",
        "median latency of one window",
        "ms",
        lambda entry: entry.figures.latency.median if entry.figures else None,
        lambda entries: f"batch 1; {_where(entries)}",
    ),
    Axis(
        "throughput",
        "throughput",
        "images/s",
        lambda entry: entry.figures.throughput if entry.figures else None,
        lambda entries: f"{_batches(entries)}; {_where(entries)}",
        more_is_better=True,
    ),
    Axis(
        "speedup",
        "speed-up over the unreduced model",
        "ratio",
        lambda entry: speedup_of(entry.figures),
        lambda entries: f"median of passes timed in turns, batch 1; {_where(entries)}",
        more_is_better=True,
    ),
    Axis(
        "gflops",
        "GFLOPs of one window",
        "10⁹ multiply-adds",
        lambda entry: entry.figures.gflops if entry.figures else None,
        lambda _: "published convention; counted, not measured",
    ),
    Axis(
        "memory",
        "peak memory",
        "MiB",
        lambda entry: entry.figures.peak_memory_mib if entry.figures else None,
        lambda entries: f"batch 1; {_where(entries)}",
    ),
)
