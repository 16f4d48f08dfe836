"""Workers: processes on any number of machines that share the points of a sweep through its output folder.

The points are the trials of an Optuna study in ``study.log``. A worker takes one after the other and holds a file lock
while it works on it. The operating system releases the lock of a killed worker; its point is then run by another one.
"""

import fcntl
import json
import shlex
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optuna
from filelock import FileLock, Timeout
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.markup import escape

from ..errors import OutputError
from ..evaluation.resume import first_difference
from ..files import require_no_file, write_atomically
from ..text import literal
from .points import Failure, Point, sweep_table
from .processes import Command, run_in_process

STUDY_FILE, SWEEP_FILE, LOG_FILE, LOCKS_FOLDER = "study.log", "sweep.json", "log.txt", ".locks"
Direction = Literal["maximize", "minimize"]
MAX_ATTEMPTS = 3
_POLL_SECONDS = 1.0
_LOG_LINES = 10  # of a failed step, shown on the screen
_NAMES = 5  # of points, in a message
_DIRECTIONS: dict[str, Direction] = {"test": "maximize", "benchmark": "minimize"}  # mIoU; latency


@dataclass(frozen=True)
class Steps:
    """What is done for each point: the steps in order, each with the options that it gets, and the command line."""

    options: Mapping[str, Sequence[str]]
    command: Command


def open_study(output: Path, name: str, directions: Sequence[Direction]) -> tuple[optuna.Study, JournalStorage]:
    """Open a study of an output folder, or create it.

    Raises:
        OutputError: The folder cannot be written to, or the study is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = output / STUDY_FILE
    require_no_file(output)
    try:
        (output / LOCKS_FOLDER).mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(path)))
        study = optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
    except OSError as error:
        raise OutputError(f"--output {output} cannot be written to: {error.strerror}") from error
    except (ValueError, KeyError) as error:
        raise OutputError(f"{path} is damaged ({error}): delete it; results of points are kept") from error
    return study, storage


def try_lock(output: Path, name: str) -> FileLock | None:
    """Return the acquired lock of that name, or ``None`` if a worker holds it."""
    lock = FileLock(output / LOCKS_FOLDER / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def is_locked(output: Path, name: str) -> bool:
    """Return whether a worker holds the lock of that name."""
    lock = try_lock(output, name)
    if lock is not None:
        lock.release()
    return lock is None


@contextmanager
def machine(output: Path, alone: bool, wait: Callable[[], None]) -> Iterator[None]:
    """Hold this machine, together with its other workers or alone; ``wait`` is called if they have to be waited for."""
    mode = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    with (output / LOCKS_FOLDER / f"machine_{socket.gethostname()}.lock").open("a+b") as stream:
        try:
            fcntl.flock(stream, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            wait()
            fcntl.flock(stream, mode)
        yield


class Queue:
    """The points of a sweep as trials of a study in its folder, one study for each choice of steps."""

    def __init__(self, output: Path, points: Sequence[Point], steps: Sequence[str]) -> None:
        self.output, self.steps = output, tuple(steps)
        self.points = {point.name: point for point in points}
        self._study, self._storage = open_study(output, ",".join(steps), [_DIRECTIONS[step] for step in steps])
        self._lock = FileLock(output / LOCKS_FOLDER / "study.lock")

    def enter(self, overwrite: bool) -> None:
        """Add the points that have neither all results nor a worker, also those that failed.

        With ``overwrite``, results with other settings are removed.

        Raises:
            OutputError: There are results or workers with other settings.
        """
        settings = {step: next(iter(self.points.values())).settings[step] for step in self.steps}
        with self._lock:
            trials = self._trials()
            running = {name for name, trial in trials.items() if trial.state is TrialState.RUNNING}
            busy = {name for name in running if is_locked(self.output, name)}
            changed = first_difference(self._study.user_attrs.get("settings", settings), settings)
            if busy and changed:
                raise OutputError(f"{self.output} is in use by workers with other settings ({changed})")
            self._remove_changed(overwrite)
            self._study.set_user_attr("settings", settings)
            for name, point in self.points.items():
                point.write_config()
                if not point.missing(self.steps):
                    point.set_failure(None)
                elif name not in trials or trials[name].state.is_finished():
                    self._add(point)
                elif name in running - busy:
                    self._tell(trials[name], None)
                    self._add(point)

    def run_next(self, run: Callable[[Point], Failure | None]) -> bool:
        """Call ``run`` with the next point, those of killed workers last; return whether there was one."""
        with self._lock:
            taken = self._take()
        if taken is None:
            return False
        point, trial, lock = taken
        try:
            failure = run(point)
            point.set_failure(failure)
            self._tell(trial, point if failure is None else None)
        except BaseException:  # such as Ctrl-C: left to other workers, or to the next start
            self._tell(trial, None)
            self._add(point, trial.user_attrs["attempt"])
            raise
        finally:
            lock.release()
        return True

    def others_running(self) -> list[str]:
        """Return the points that other workers are running."""
        trials = self._trials().items()
        return [name for name, trial in trials if name in self.points and trial.state is TrialState.RUNNING]

    def seconds_left(self) -> float | None:
        """Estimate how long the unfinished points take from those that are finished, if there are any."""
        trials = self._trials().values()
        seconds = [trial.duration.total_seconds() for trial in trials if trial.duration and trial.values]
        unfinished = [trial for trial in trials if not trial.state.is_finished()]
        workers = max(sum(trial.state is TrialState.RUNNING for trial in unfinished), 1)
        return len(unfinished) * sum(seconds) / len(seconds) / workers if seconds else None

    def _take(self) -> tuple[Point, FrozenTrial, FileLock] | None:
        trials = [trial for name, trial in self._trials().items() if name in self.points]
        for trial in sorted(trials, key=lambda trial: (trial.state is TrialState.RUNNING, trial.number)):
            point = self.points[trial.user_attrs["point"]]
            lock = None if trial.state.is_finished() else try_lock(self.output, point.name)
            if lock is None:
                continue
            if trial.state is TrialState.RUNNING:  # its worker was killed
                self._tell(trial, None)
                attempt = trial.user_attrs["attempt"]
                if attempt == MAX_ATTEMPTS:
                    step = next(iter(point.missing(self.steps)), self.steps[-1])
                    point.set_failure(Failure(step, f"{attempt} workers were killed while they ran it"))
                    lock.release()
                    continue
                trial = self._add(point, attempt + 1)
            self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
            return point, trial, lock
        return None

    def _trials(self) -> dict[str, FrozenTrial]:
        """Return the newest trial of each point."""
        return {trial.user_attrs["point"]: trial for trial in self._study.get_trials(deepcopy=False)}

    def _add(self, point: Point, attempt: int = 1) -> FrozenTrial:
        attributes = {"point": point.name, "reducer": point.reducer, "attempt": attempt}
        self._study.add_trial(optuna.trial.create_trial(state=TrialState.WAITING, user_attrs=attributes))
        return self._trials()[point.name]

    def _tell(self, trial: FrozenTrial, done: Point | None) -> None:
        values: list[float] = []
        if done is not None:
            found = {"test": done.miou, "benchmark": done.latency and done.latency[0]}
            values = [value for step in self.steps if (value := found[step]) is not None]
        if len(values) == len(self.steps):
            self._study.tell(trial.number, values)
        else:
            self._study.tell(trial.number, state=TrialState.FAIL)

    def _remove_changed(self, overwrite: bool) -> None:
        """Remove results with other settings before any work, so that resuming needs no ``overwrite``."""
        pairs = [(point, step) for point in self.points.values() for step in self.steps]
        changed = [(*pair, which) for pair in pairs if (which := pair[0].settings_changed(pair[1]))]
        if changed and not overwrite:
            point, step, which = changed[0]
            names = list(dict.fromkeys(point.name for point, _, _ in changed))
            listed = ", ".join([*names[:_NAMES], *(["..."] if len(names) > _NAMES else [])])
            raise OutputError(
                f"{point.result(step)} was made with other settings ({which}); use --overwrite to replace it, or "
                f"another --output. Points with such results: {listed}"
            )
        for point, step, _ in changed:
            point.result(step).unlink()


def run_points(
    output: Path, points: Sequence[Point], steps: Steps, content: Mapping[str, Any], overwrite: bool, console: Console
) -> int:
    """Run the points of a sweep that are not done, together with other workers of the same folder.

    ``content`` says in ``sweep.json`` what the sweep is made of; ``overwrite`` replaces results with other settings.

    Returns:
        The exit status: 0, or 2 if a point failed.

    Raises:
        OutputError: The folder has results or workers with other settings, or cannot be written to.
    """
    names = list(steps.options)
    queue = Queue(output, points, names)
    queue.enter(overwrite)
    listed = [{"name": point.name, "reducer": point.reducer} for point in points]
    text = json.dumps({"kind": "sweep", **content, "points": listed}, indent=1, default=str)
    write_atomically(output / SWEEP_FILE, text.encode())
    if done := sum(not point.missing(names) for point in points):
        rest = ": nothing to do" if done == len(points) else ""
        say(console, f"{done} of {len(points)} points are done already{rest}")
    told = console.is_terminal  # where the line below the others shows it
    while True:
        if queue.run_next(lambda point: run_point(point, steps, console)):
            done = sum(not point.missing(names) for point in points)
            seconds = queue.seconds_left()
            left = f", about {seconds / 60:.1f} min left" if seconds else ""
            say(console, f"{done} of {len(points)} points are done{left}")
        elif others := queue.others_running():
            waiting = f"waiting for other workers: {', '.join(others)}"
            if not told:
                say(console, waiting)
            told = True
            with console.status(escape(waiting)):
                time.sleep(_POLL_SECONDS)
        else:
            break
    console.print(sweep_table(points, names))
    if unfinished := sum(bool(point.missing(names)) for point in points):
        are = "point is" if unfinished == 1 else "points are"
        say(console, f"{unfinished} {are} not finished: the same command tries again")
        return 2
    folder, report = shlex.quote(str(output)), shlex.quote(str(output.with_name(f"{output.name}_report")))
    say(console, f"next:\n  lightning-expedite report {folder} --output {report}")
    say(console, f"  lightning-expedite recommend {folder} --max_loss 0.5")
    return 0


def run_point(point: Point, steps: Steps, console: Console) -> Failure | None:
    """Run the steps of a point that have no result, up to the first that fails."""
    point.set_failure(None)
    log = point.folder / LOG_FILE
    for step in point.missing(list(steps.options)):
        start, printed = time.perf_counter(), log.stat().st_size if log.exists() else 0
        wait = partial(say, console, f"{point.name}: {step} waits for the other workers on this machine")
        with console.status(f"{escape(point.name)}: {step}"), machine(point.output, step == "benchmark", wait):
            status = run_in_process(steps.command, [*point.arguments(step), *steps.options[step]], log)
        if status != 0 or point.read(step) is None:
            lines = log.read_bytes()[printed:].decode(errors="replace").strip().splitlines()
            failure = Failure(step, _error(status, lines))
            say(console, f"{point.name}: {step} failed: {failure.error}")
            for line in [*lines[-_LOG_LINES:], f"(all of it is in {log})"]:
                say(console, f"    {line}")
            return failure
        say(console, f"{point.name}: {step} took {time.perf_counter() - start:.1f} s")
    return None


def _error(status: int, lines: Sequence[str]) -> str:
    if status < 0:
        reason = ", as the kernel does when memory runs out" if -status == signal.SIGKILL else ""
        return f"its process was killed by {signal.Signals(-status).name}{reason}"
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [f"its process ended with status {status}"])[-1]


def say(console: Console, text: str) -> None:
    """Print a line in which nothing is markup."""
    console.print(literal(text), soft_wrap=True)
