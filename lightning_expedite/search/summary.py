"""What a sweep says at its end: its points with score, speed-up and status, and what to do next."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from ..evaluation.tables import literal
from .folders import PointFolder


def sweep_table(folders: Sequence[PointFolder], steps: Sequence[str]) -> Table:
    """Make the table of all points of a sweep, those of other shards included."""
    table = Table(title="Sweep", title_justify="left")
    table.add_column("point", overflow="fold")
    for column in ("mIoU %", "ms", "speed-up"):
        table.add_column(column, justify="right")
    table.add_column("status")
    for folder in folders:
        table.add_row(literal(folder.name), _score(folder), *_speed(folder), status(folder, steps))
    return table


def status(folder: PointFolder, steps: Sequence[str]) -> str:
    """Say how far a point is."""
    missing = [step for step in steps if folder.content(step) is None]
    failure = folder.failure()
    if failure is not None and failure.step in missing:
        return f"[red]{failure.step} failed[/]"
    return "done" if not missing else f"no {' and no '.join(missing)}"


def next_commands(output: Path, unfinished: int) -> str:
    """Say what to do with the sweep now."""
    if unfinished:
        points = "1 point is" if unfinished == 1 else f"{unfinished} points are"
        return f"{points} not finished: the same command goes on with them (other shards: theirs)"
    folder = shlex.quote(str(output))
    report = shlex.quote(str(output.with_name(f"{output.name}_report")))
    return "\n".join(
        (
            "next:",
            f"  python -m lightning_expedite report {folder} --output {report}",
            f"  python -m lightning_expedite recommend {folder} --max_loss 0.5",
        )
    )


def _score(folder: PointFolder) -> str:
    content = folder.content("test")
    value = content and content["scores"]["mIoU"]
    return "-" if value is None else f"{value:.2f}"


def _speed(folder: PointFolder) -> tuple[str, str]:
    content = folder.content("benchmark")
    if content is None:
        return "-", "-"
    latency = content["rows"][0]["latency"]
    if latency["reduced"] is None:
        return f"{latency['unreduced']['median_ms']:.4g}", "1"
    return f"{latency['reduced']['median_ms']:.4g}", f"{latency['speedup']['median']:.2f}"
