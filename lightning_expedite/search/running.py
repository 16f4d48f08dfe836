"""A sweep from its options to its last step."""

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ..errors import ConfigError, OutputError
from ..evaluation.resume import difference
from ..evaluation.tables import literal
from ..files import write_atomically
from .client import Answer, Worker
from .folders import SWEEP_FILE, Failure, PointFolder, make_folder
from .grid import Grid, read_grid
from .progress import SweepProgress
from .sharding import locked
from .summary import next_commands, status, sweep_table
from .sweep_options import Options

_LAST_LINES = 10
_MOST_NAMES = 5


@dataclass(frozen=True)
class Planned:
    """A point with all its settings, as `resolving.resolve` gives them."""

    folder: PointFolder
    reducer: dict[str, Any] | None
    settings: dict[str, dict[str, Any]]  # of each step

    def unfinished(self, steps: Sequence[str]) -> list[str]:
        """Give the steps that have no result."""
        return [step for step in steps if self.folder.content(step) is None]


@dataclass(frozen=True)
class Plan:
    """All that a sweep is to do."""

    options: Options
    overrides: dict[str, Any]
    processes: int
    points: list[Planned]


def sweep(options: Options, console: Console) -> int:
    """Do what is not done yet, and show what there is.

    Returns:
        The exit status: 0, or 2 where a point of this shard failed.

    Raises:
        ExpediteError: The options or the grid cannot be used, or the folder has results of other settings.
    """
    worker = Worker()
    try:
        worker.start()
        grid = read_grid(options.grid)
        with console.status(f"checking {len(grid.points)} points"):
            plan = resolve(options, grid, worker)
        with locked(options.output, options.shard):
            mine = options.shard.take(plan.points)
            clear_other_settings(plan, mine)
            write_sweep_file(plan, grid)
            failed = run_points(plan, mine, worker, console)
    finally:
        worker.close()
    show_end(plan, console)
    return 2 if failed else 0


def resolve(options: Options, grid: Grid, worker: Worker) -> Plan:
    """Have options and grid checked, and completed with all defaults.

    Raises:
        ConfigError: One of them cannot be used.
    """
    request = {
        "configs": [str(config) for config in options.configs],
        "words": options.words,
        "benchmark_words": options.benchmark_words if "benchmark" in options.steps else None,
        "reducers": [(f"--grid {grid.path}: {point.origin}", point.reducer) for point in grid.points],
    }
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        answer = worker.ask({"kind": "resolve", "request": request, "log": str(log)})
        if answer.status:
            raise ConfigError(_error_of(answer, log, 0))
    folders = (PointFolder(options.output, point.name) for point in grid.points)
    points = [Planned(folder, **found) for folder, found in zip(folders, answer.value["points"], strict=True)]
    _require_different(grid, points)
    return Plan(options, answer.value["overrides"], answer.value["processes"], points)


def _require_different(grid: Grid, planned: Sequence[Planned]) -> None:
    first: dict[str, str] = {}
    for point, known in zip(grid.points, planned, strict=True):
        other = first.setdefault(json.dumps(known.reducer, sort_keys=True), point.name)
        if other != point.name:
            raise ConfigError(
                f"--grid {grid.path}: {point.origin}: {point.name} has the same settings as {other}: leave one out"
            )


def clear_other_settings(plan: Plan, points: Sequence[Planned]) -> None:
    """Refuse results that were made with other settings, or take them away where the user wants that.

    They are taken away before any work, so that a sweep which is stopped later goes on without ``--overwrite``.

    Raises:
        OutputError: There are some and ``--overwrite`` is not given.
    """
    other = []
    for point in points:
        for step in plan.options.steps:
            found = point.folder.settings(step)
            differing = None if found is None else difference(found, point.settings[step])
            if differing:
                other.append((point.folder, step, differing))
    if other and not plan.options.overwrite:
        folder, step, differing = other[0]
        names = list(dict.fromkeys(folder.name for folder, _, _ in other))
        listed = ", ".join([*names[:_MOST_NAMES], *(["..."] if len(names) > _MOST_NAMES else [])])
        raise OutputError(
            f"{folder.result(step)} was made with other settings ({differing}); give --overwrite to replace it, or "
            f"another --output. Points with such results: {listed}"
        )
    for folder, step, _ in other:
        folder.discard(step)


def write_sweep_file(plan: Plan, grid: Grid) -> None:
    """Write what the sweep is of; all shards write the same."""
    content = {
        "kind": "sweep",
        "config": [str(config) for config in plan.options.configs],
        "grid": {"file": str(grid.path), "entries": grid.entries},
        "points": [{"name": point.folder.name, "reducer": point.reducer} for point in plan.points],
    }
    write_atomically(plan.options.output / SWEEP_FILE, json.dumps(content, indent=1, default=str).encode())


def run_points(plan: Plan, points: Sequence[Planned], worker: Worker, console: Console) -> int:
    """Do the steps of each point that are not done; gives the number of points that failed."""
    todo = {point.folder.name: point.unfinished(plan.options.steps) for point in points}
    done = sum(not steps for steps in todo.values())
    with SweepProgress(console, len(points), done, [step for steps in todo.values() for step in steps]) as progress:
        for point in points:
            point.folder.write_config(plan.options.configs, plan.overrides, point.reducer)
            if todo[point.folder.name]:
                run_point(plan, point, todo[point.folder.name], worker, progress)
            else:
                point.folder.set_failure(None)
    return progress.failed


def run_point(plan: Plan, point: Planned, steps: Sequence[str], worker: Worker, progress: SweepProgress) -> None:
    """Do a point's steps, up to the first that fails."""
    folder = point.folder
    folder.set_failure(None)
    for number, step in enumerate(steps):
        progress.begin(folder.name, step)
        written = folder.log.stat().st_size if folder.log.exists() else 0
        make_folder(folder.step(step))
        answer = worker.ask({"kind": _kind(plan, step), "words": words_of(plan, folder, step), "log": str(folder.log)})
        if answer.status == 0 and folder.content(step) is not None:
            progress.end()
            continue
        failure = Failure(step, _error_of(answer, folder.log, written))
        folder.set_failure(failure)
        lines = _text_from(folder.log, written).strip().splitlines()[-_LAST_LINES:]
        progress.fail_point(failure, steps[number:], lines, str(folder.log))
        return
    progress.finish_point()


def words_of(plan: Plan, folder: PointFolder, step: str) -> list[str]:
    """Give the command line of a step."""
    words = folder.words(step)
    return words if step == "test" else [*words, *plan.options.place_words, *plan.options.benchmark_words]


def show_end(plan: Plan, console: Console) -> None:
    """Show all points of the sweep, and what to do next."""
    folders = [point.folder for point in plan.points]
    steps = plan.options.steps
    console.print(sweep_table(folders, steps))
    unfinished = sum(status(folder, steps) != "done" for folder in folders)
    console.print(literal(next_commands(plan.options.output, unfinished)), soft_wrap=True)


def _kind(plan: Plan, step: str) -> str:
    return "separate" if step == "test" and plan.processes > 1 else "here"


def _error_of(answer: Answer, log: Path, start: int) -> str:
    """Give an answer's error, or the one that its job printed."""
    if answer.error:
        return answer.error
    text = _text_from(log, start)
    printed = re.split(r"^error: ", text, flags=re.MULTILINE)[1:]
    if printed:
        return " ".join(printed[-1].split())
    lines = text.strip().splitlines()
    return lines[-1] if lines else f"exit status {answer.status}, without an error"


def _text_from(path: Path, start: int) -> str:
    try:
        return path.read_bytes()[start:].decode(errors="replace")
    except OSError:
        return ""
