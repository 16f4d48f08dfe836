"""Which settings are worth their cost: Pareto fronts of mIoU against cost, and the fastest setting for a loss."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from ..text import digits, signed

MAX_LOSSES = (0.5, 1.0, 2.0)  # points of mIoU for which a report names the fastest setting


class Axis(NamedTuple):
    """What a setting costs, or gains if ``higher_is_better``: a column of the table, and its title."""

    key: str
    name: str
    column: str
    title: str
    higher_is_better: bool = False


AXES = (
    Axis("latency", "latency", "latency_ms", "median latency of one window, ms (batch 1)"),
    Axis("throughput", "throughput", "throughput_images_per_s", "throughput, images/s (batch {batch})", True),
    Axis("speedup", "speed-up", "speedup", "speed-up over the baseline (median of pairs, batch 1)", True),
    Axis("gflops", "GFLOPs", "gflops", "GFLOPs of one window, 10⁹ multiply-adds (published convention)"),
    Axis("memory", "peak memory", "peak_memory_mib", "peak memory, MiB (batch 1)"),
)


class FrontView(NamedTuple):
    """Settings whose costs and scores are comparable: of one subject, timed in one environment."""

    subject: str
    environment: str
    table: pd.DataFrame

    def points(self, axis: Axis) -> pd.DataFrame:
        """Return the settings that have a place on an axis."""
        return self.table[self.table[axis.column].notna()]

    def front(self, axis: Axis) -> pd.DataFrame:
        """Return the settings on the Pareto front, by rising value on the axis."""
        points = self.points(axis)
        cost = -points[axis.column] if axis.higher_is_better else points[axis.column]
        return points.iloc[pareto_front(list(zip(cost, points["mIoU"], strict=True)))].sort_values(axis.column)

    def title(self, axis: Axis) -> str:
        """Return the axis' title, with batch sizes where it has them."""
        sizes = sorted(self.table["throughput_batch_size"].dropna().unique())
        return axis.title.format(batch=" to ".join(map(str, dict.fromkeys((*sizes[:1], *sizes[-1:])))))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the points that no other dominates, by less cost without less score or more score without more cost.

    Args:
        points: Cost and score of each.

    Returns:
        Their indices, by rising cost. Points at the same place are all on the front, or none is.
    """
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1]))
    front: list[int] = []
    for index in order:
        if not front or points[index][1] > points[front[-1]][1] or points[index] == points[front[-1]]:
            front.append(index)
    return front


def views(table: pd.DataFrame) -> list[FrontView]:
    """Split a table of `read_results` by subject and environment; settings without scores or times are left out."""
    drawn = table[table["on_front"] & table["mIoU"].notna() & table["environment"].notna()]
    return [
        FrontView(str(subject), str(environment), part)
        for (subject, environment), part in drawn.groupby(["subject", "environment"], sort=False)
    ]


def answers(view: FrontView) -> Iterator[str]:
    """Name the fastest setting within each of `MAX_LOSSES`; losses with the same answer share a sentence."""
    known = view.table[view.table["mIoU_difference"].notna()]
    if known.empty:
        return
    best: dict[str | None, list[float]] = {}
    for limit in MAX_LOSSES:
        fast = known[(known["mIoU_difference"] >= -limit) & (known["speedup"] > 1)]
        best.setdefault(None if fast.empty else fast.loc[fast["speedup"].idxmax(), "setting"], []).append(limit)
    for setting, limits in best.items():
        *others, last = (f"{limit:g}" for limit in limits)
        either = f"{', '.join(others)} or {last}" if others else last
        least = f"At most {either} point{'' if either == '1' else 's'} of mIoU lost"
        if setting is None:
            yield f"{least}: no setting is faster than the baseline."
            continue
        row = known[known["setting"] == setting].iloc[0]
        yield (
            f"{least}: {setting}, {row['speedup']:.2f} times as fast (quartiles {row['speedup_q1']:.2f} to "
            f"{row['speedup_q3']:.2f}), mIoU {signed(row['mIoU_difference'])} points, {digits(row['latency_ms'])} ms."
        )
