"""What a sweep shows while it runs: a bar on a terminal, plain lines elsewhere."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..evaluation.tables import literal
from .folders import Failure


class Estimate:
    """Tells from the steps that ended how long the others will take."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}

    def add(self, step: str, seconds: float) -> None:
        """Take in what a step took."""
        self._seconds.setdefault(step, []).append(seconds)

    def left(self, steps: Mapping[str, int]) -> float | None:
        """Give the seconds that so many of each step will take; ``None`` while there is none like one of them."""
        total = 0.0
        for step, count in steps.items():
            known = self._seconds.get(step)
            if count and not known:
                return None
            total += count * sum(known) / len(known) if known else 0.0
        return total


class SweepProgress:
    """Shows points done, failed and left, the step in hand, and the time that is left.

    Args:
        console: Where to show it.
        points: Points of this shard.
        done: How many of them are done already.
        steps: The steps still to do, of all points.
    """

    def __init__(self, console: Console, points: int, done: int, steps: Iterable[str]) -> None:
        self.console = console
        self.points, self.done, self.failed = points, done, 0
        self._left = Counter(steps)
        self._estimate = Estimate()
        self._point, self._step, self._start = "", "", 0.0
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=self._left.total(), left="")

    def __enter__(self) -> "SweepProgress":
        """Open the bar."""
        if self.done:
            self.say(f"{self.done} of {self.points} points are done already")
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Close the bar."""
        self._progress.stop()

    def say(self, text: str) -> None:
        """Print a line as it is."""
        self.console.print(literal(text), soft_wrap=True)

    def begin(self, point: str, step: str) -> None:
        """Tell that a step begins."""
        self._point, self._step, self._start = point, step, time.monotonic()
        self._show()

    def end(self) -> None:
        """Tell that the step is done."""
        seconds = time.monotonic() - self._start
        self._estimate.add(self._step, seconds)
        self._count([self._step])
        if not self.console.is_terminal:
            self.say(f"{self._point}: {self._step} took {seconds:.1f} s; {self.time_left()}")

    def finish_point(self) -> None:
        """Tell that all steps of the point are done."""
        self.done += 1
        self._show()

    def fail_point(self, failure: Failure, unfinished: Sequence[str], last_lines: Sequence[str], log: str) -> None:
        """Tell that the step failed, and the point's unfinished steps with it."""
        self.failed += 1
        self._count(unfinished)
        self.say(f"{self._point}: {failure.step} failed: {failure.error}")
        for line in last_lines:
            self.say(f"    {line}")
        self.say(f"    (all of it is in {log})")

    def time_left(self) -> str:
        """Say in words how much time is left."""
        count = self._left.total()
        steps = "1 step" if count == 1 else f"{count or 'no'} steps"
        seconds = self._estimate.left(self._left)
        if not count or seconds is None:
            return f"{steps} left"
        minutes = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
        return f"{steps} left, about {minutes}"

    def _count(self, steps: Sequence[str]) -> None:
        self._left.subtract(steps)
        self._progress.advance(self._task, len(steps))
        self._show()

    def _show(self) -> None:
        left = self.points - self.done - self.failed
        failed = f", [bold red]{self.failed} failed[/]" if self.failed else ""
        points = f"{self.done} done{failed}, {left} left"
        self._progress.update(
            self._task, description=f"{points} · {escape(self._point)}: {self._step}", left=self.time_left()
        )
