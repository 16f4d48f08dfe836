"""Points of a sweep: a reducer with its settings, and the folder with the results of its steps."""

import difflib
import importlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonargparse
import yaml
from rich.table import Table

from ..errors import ConfigError
from ..evaluation.resume import first_difference
from ..files import BENCHMARK_FILE, FAILURE_FILE, POINT_FILE, RESULTS_FILE, write_atomically
from ..reducers import EncoderShape, Reducer
from ..text import literal

POINTS_FOLDER = "points"
_RESULTS = {"test": RESULTS_FILE, "benchmark": BENCHMARK_FILE}


@dataclass(frozen=True)
class Failure:
    """Why a point has no result."""

    step: str
    error: str


@dataclass(frozen=True)
class Point:
    """A reducer with all its settings (``None``: the baseline), and its folder below a sweep's ``output``.

    ``settings`` are those of the sweep for each step, without a reducer, in the form in which results store them.
    """

    output: Path
    name: str
    reducer: dict[str, Any] | None
    settings: Mapping[str, Mapping[str, Any]]

    @property
    def folder(self) -> Path:
        """Folder of the point's config, log and results."""
        return self.output / POINTS_FOLDER / self.name

    def result(self, step: str) -> Path:
        """Return the file that a step writes last."""
        return self.folder / step / _RESULTS[step]

    def arguments(self, step: str) -> list[str]:
        """Return a step's command line, which resumes a test and replaces older results."""
        words = [step, "--config", str(self.folder / POINT_FILE), "--output", str(self.folder / step), "--overwrite"]
        return [*words, "--resume", "true"] if step == "test" else words

    def write_config(self) -> None:
        """Write the point's config, usable alone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(self._with_reducer(self.settings["test"]), sort_keys=False, allow_unicode=True)
        content = f"# All settings of the point {self.name} of a sweep.\n{text}"
        write_atomically(self.folder / POINT_FILE, content.encode())

    def read(self, step: str) -> dict[str, Any] | None:
        """Return a step's result, ``None`` where there is none or it is damaged or empty."""
        try:
            content: dict[str, Any] = json.loads(self.result(step).read_bytes())
            complete = content["config"] if step == "test" else content["rows"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return content if complete else None

    def missing(self, steps: Sequence[str]) -> list[str]:
        """Return the steps that have no result."""
        return [step for step in steps if self.read(step) is None]

    def settings_changed(self, step: str) -> str | None:
        """Return in which setting a step's result differs from what it should have, if there is one and it does."""
        content = self.read(step)
        if content is None:
            return None
        if step == "test":
            found = content["config"]
        else:
            common = {name: value for name, value in content["settings"].items() if name != "configs"}
            found = {**common, **content["rows"][0].get("settings", {})}
        return first_difference(found, self._with_reducer(self.settings[step]))

    def _with_reducer(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {**settings, "model": {**settings["model"], "reducer": self.reducer}}

    @property
    def failure(self) -> Failure | None:
        """Why the point failed when it was last tried."""
        try:
            return Failure(**json.loads((self.folder / FAILURE_FILE).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def set_failure(self, failure: Failure | None) -> None:
        """Write why the point failed, or remove what was written if it did not."""
        path = self.folder / FAILURE_FILE
        if failure is None:
            path.unlink(missing_ok=True)
        else:
            write_atomically(path, json.dumps(vars(failure), indent=1).encode())

    @property
    def miou(self) -> float | None:
        """The mIoU in percent, if the point was tested."""
        content = self.read("test")
        return None if content is None else content["scores"]["mIoU"]

    @property
    def latency(self) -> tuple[float, float] | None:
        """Median latency in milliseconds at batch size 1 and median speed-up, if the point was benchmarked."""
        content = self.read("benchmark")
        if content is None:
            return None
        latency = content["rows"][0]["latency"]
        if latency["reduced"] is None:
            return latency["unreduced"]["median_ms"], 1.0
        return latency["reduced"]["median_ms"], latency["speedup"]["median"]


def sweep_table(points: Sequence[Point], steps: Sequence[str]) -> Table:
    """Return a table of all points with their scores, speed-ups and status."""
    table = Table(title="Sweep", title_justify="left")
    table.add_column("point", overflow="fold")
    for column in ("mIoU %", "ms", "speed-up"):
        table.add_column(column, justify="right")
    table.add_column("status")
    for point in points:
        miou, latency, missing, failure = point.miou, point.latency, point.missing(steps), point.failure
        scores = "-" if miou is None else f"{miou:.2f}"
        speed = ("-", "-") if latency is None else (f"{latency[0]:.4g}", f"{latency[1]:.2f}".removesuffix(".00"))
        status = f"no {' and no '.join(missing)}" if missing else "done"
        if failure is not None and failure.step in missing:
            status = f"[red]{failure.step} failed[/]"
        table.add_row(literal(point.name), scores, *speed, status)
    return table


def require_different(points: Sequence[Point], grid: str) -> None:
    """Raise `ConfigError` if two points of a grid are the same reducer with the same settings."""
    first: dict[str, str] = {}
    for point in points:
        other = first.setdefault(json.dumps(point.reducer, sort_keys=True), point.name)
        if other != point.name:
            raise ConfigError(f"--grid {grid}: {point.name} has the same settings as {other}: remove one")


def resolve_reducer(spec: Mapping[str, Any], encoder: EncoderShape) -> dict[str, Any]:
    """Return a reducer's full class path and all its settings, once it is clear that they suit an encoder.

    Raises:
        ConfigError: There is no such class or setting, or a value is of the wrong type.
        ReducerError: A value is out of range or does not suit the encoder.
    """
    kind = find_reducer(spec["class_path"])
    try:
        inspect.signature(kind).bind(**spec["init_args"])
    except TypeError as error:
        names = ", ".join(inspect.signature(kind).parameters)
        raise ConfigError(f"{kind.__name__}: {error}; its settings are {names}") from error
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--reducer", type=Reducer)
    try:
        config = parser.parse_object({"reducer": spec})
    except jsonargparse.ArgumentError as error:
        innermost = re.split('[Kk]ey "', " ".join(str(error).split()))[-1]
        setting, _, reason = innermost.rpartition('": ')
        raise ConfigError(f"{setting or kind.__name__}: {reason}") from error
    parser.instantiate(config).reducer.check(encoder)
    content: dict[str, Any] = json.loads(json.dumps(config.reducer.as_dict(), default=str))
    # jsonargparse prefers the shorter path of a name that the package exports; results have the other one.
    full = re.sub(r"^lightning_expedite\.(?=[A-Z])", "lightning_expedite.reducers.", content["class_path"])
    return {"class_path": full, "init_args": content.get("init_args", {})}


def find_reducer(name: str) -> type[Reducer]:
    """Return a reducer's class by its name, or by its path where it is not one of this package.

    Raises:
        ConfigError: There is no such reducer.
    """
    module, _, last = name.rpartition(".")
    kinds = [kind for kind in _subclasses(Reducer) if not inspect.isabstract(kind)]  # type: ignore[type-abstract]
    known = {kind.__name__: kind for kind in kinds}
    found: Any = known.get(name)
    if module:
        try:
            found = getattr(importlib.import_module(module), last)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(f"reducer {name!r} cannot be imported: {error}") from error
    if not (inspect.isclass(found) and issubclass(found, Reducer)) or inspect.isabstract(found):
        own = sorted(name for name in known if known[name].__module__.startswith("lightning_expedite."))
        matches = difflib.get_close_matches(last.lower(), map(str.lower, own), n=1)
        hint = f" (did you mean {next(name for name in own if name.lower() == matches[0])}?)" if matches else ""
        raise ConfigError(
            f"{name!r} is not a reducer{hint}: choose {', '.join(own)}, or the path of a class of your own"
        )
    return found


def _subclasses(kind: type[Reducer]) -> Iterator[type[Reducer]]:
    for below in kind.__subclasses__():
        yield below
        yield from _subclasses(below)
