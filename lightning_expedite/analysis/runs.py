"""Results of ``test`` and ``benchmark``, read from any number of files and brought together by setting.

Nothing here needs torch: reports are written where there is neither a GPU nor the data.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError
from .schema import ImageLine, PointFailure, check, load_checked, read_json

POINT_FILE = "point.yaml"  # a sweep's config of one setting; the results lie in folders beside it
RESULTS_FILE, IMAGES_FILE, BENCHMARK_FILE = "results.json", "images.jsonl", "benchmark.json"
FAILURE_FILE = "failed.json"


@dataclass(frozen=True)
class Test:
    """What one ``test`` left: ``content`` is its ``results.json``."""

    path: Path
    content: Mapping[str, Any]

    @property
    def data(self) -> str:
        """Name of the data set's class, such as ``ADE20K``."""
        return _class_name(self.content["config"]["data"]["class_path"])

    @property
    def checkpoint(self) -> str:
        """The weights, as the config names them."""
        return str(self.content["config"]["model"]["checkpoint"])

    @property
    def reducer(self) -> Mapping[str, Any] | None:
        """``class_path`` and ``init_args``."""
        return self.content["config"]["model"]["reducer"]

    @property
    def precision(self) -> str:
        """As Lightning names it."""
        return str(self.content["environment"]["precision"])

    @cached_property
    def images(self) -> list[dict[str, Any]]:
        """The lines of ``images.jsonl``, in the order of the data set: one per image, with its pixel counts.

        Raises:
            DataError: The file is missing or damaged.
        """
        path = self.path.with_name(IMAGES_FILE)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            rows = [json.loads(line) for line in lines]
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        for number, row in enumerate(rows, start=1):
            check(row, ImageLine, f"{path}, line {number},")
        if len(rows) != self.content["images"]:
            raise DataError(f"{path} has {len(rows)} lines, {self.path} is of {self.content['images']} images")
        return rows


@dataclass(frozen=True)
class Speed:
    """One row of a ``benchmark``: ``row`` is the row, ``content`` the whole ``benchmark.json``."""

    path: Path
    row: Mapping[str, Any]
    content: Mapping[str, Any]

    @property
    def checkpoint(self) -> str:
        """The weights, as the config names them."""
        return str(self.row["model"]["checkpoint"])

    @property
    def reducer(self) -> Mapping[str, Any] | None:
        """``class_path`` and ``init_args``."""
        return self.row["reducer"]

    @property
    def environment(self) -> str:
        """What times are comparable within: device, threads, precision and compilation, in words."""
        environment, settings = self.content["environment"], self.content["settings"]
        words = [environment["device"], settings["precision"]]
        if environment["device_type"] == "cpu":
            words.insert(1, f"{environment['threads']} thread{'' if environment['threads'] == 1 else 's'}")
        if settings["compile"]:
            words.append("compiled" if settings["compile"] is True else f"compiled: {settings['compile']}")
        return ", ".join(words)


@dataclass(frozen=True)
class Run:
    """One setting of one model, with what is known of it: its scores, its speed in one environment, or both."""

    name: str
    checkpoint: str
    reducer: Mapping[str, Any] | None
    test: Test | None
    speed: Speed | None

    @property
    def method(self) -> str:
        """Name of the reducer's class, or ``none``."""
        return "none" if self.reducer is None else _class_name(self.reducer["class_path"])

    @property
    def label(self) -> str:
        """The method with the settings that say most, in a few words."""
        if self.reducer is None:
            return "unreduced"
        settings = self.reducer.get("init_args") or {}
        return f"{self.method} {', '.join(f'{key} {_brief(settings[key])}' for key in _telling(settings))}".rstrip()


def read_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Read results and bring scores and speeds of the same setting together.

    A score belongs to a speed when the weights and all settings of the reducer are the same. A setting with speeds in
    several environments makes a run of each. Where scores of a setting exist at several precisions, a speed is given
    those at its own.

    Args:
        paths: Files ``results.json`` and ``benchmark.json``, or folders, in which they are searched at any depth.

    Returns:
        The runs, in the order of the paths; unreduced models first within one.

    Raises:
        DataError: A path does not exist, a file is damaged or of another kind, or there is no result in any.
    """
    tests: list[Test] = []
    speeds: list[Speed] = []
    for path in dict.fromkeys(file.resolve() for given in paths for file in find_results(Path(given))):
        content = load_checked(path)
        if content.get("kind") == "benchmark":
            speeds += [Speed(path, row, content) for row in content["rows"]]
        else:
            tests.append(Test(path, content))
    runs = list(_join(tests, speeds))
    if not runs:
        raise DataError(f"no result in {', '.join(map(str, paths)) or 'no path'}: run test or benchmark first")
    return sorted(runs, key=lambda run: run.reducer is not None)


class Failure(NamedTuple):
    """A setting that has no result: its name, and why."""

    name: str
    error: str


def read_failures(paths: Iterable[str | Path]) -> list[Failure]:
    """List what failed: points of sweeps, and configs of benchmarks.

    Args:
        paths: As `read_runs` takes them.

    Raises:
        DataError: A path does not exist or a file is damaged.
    """
    failures: list[Failure] = []
    for given in map(Path, paths):
        for file in find_results(given):
            if file.name == BENCHMARK_FILE:
                failed = load_checked(file).get("failed", [])
                failures += [Failure(failure["config"], failure["error"]) for failure in failed]
        for file in sorted(given.rglob(FAILURE_FILE)) if given.is_dir() else []:
            content = read_json(file)
            check(content, PointFailure, file)
            failures.append(Failure(file.parent.name, f"{content['step']}: {content['error']}"))
    return list(dict.fromkeys(failures))


def find_results(path: Path) -> Iterator[Path]:
    """List the results files that a path stands for.

    Raises:
        DataError: There is nothing at the path.
    """
    if path.is_dir():
        yield from sorted(file for name in (RESULTS_FILE, BENCHMARK_FILE) for file in path.rglob(name))
    elif path.is_file():
        yield path
    else:
        raise DataError(f"{path} does not exist: give results.json, benchmark.json or folders that contain them")


def setting_key(checkpoint: str, reducer: Mapping[str, Any] | None) -> str:
    """Give a text that is the same for the same weights and reducer settings."""
    if reducer is None:
        return json.dumps([checkpoint, None])
    return json.dumps(
        [checkpoint, _class_name(reducer["class_path"]), _plain(reducer.get("init_args") or {})], sort_keys=True
    )


def _join(tests: Sequence[Test], speeds: Sequence[Speed]) -> Iterator[Run]:
    used: set[int] = set()
    scores: dict[str, list[Test]] = {}
    for test in tests:
        scores.setdefault(setting_key(test.checkpoint, test.reducer), []).append(test)
    for speed in speeds:
        alike = scores.get(setting_key(speed.checkpoint, speed.reducer), [])
        nearest = max(alike, key=lambda test: _nearness(test, speed), default=None)
        used.add(id(nearest))
        yield Run(speed.row["config"], speed.checkpoint, speed.reducer, nearest, speed)
    for test in tests:
        if id(test) not in used:
            folder = test.path.parent
            name = folder.parent.name if (folder.parent / POINT_FILE).is_file() else folder.name
            yield Run(name, test.checkpoint, test.reducer, test, None)


def _nearness(test: Test, speed: Speed) -> tuple[bool, bool, bool]:
    """Tell how well a score fits a speed of the same setting: by precision, data, and the folder of a sweep's point."""
    source = (speed.row.get("input") or {}).get("source")
    return (
        test.precision == speed.content["settings"]["precision"],
        test.data == source,
        test.path.parent.parent == speed.path.parent.parent,
    )


def _plain(value: Any) -> Any:
    """Bring a value as YAML or JSON stored it to one form: numbers as float, tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    exact = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53
    return float(value) if exact else value


def _class_name(path: str) -> str:
    return path.rpartition(".")[2]


_FIRST = ("location", "locations", "clusters", "keep_rate", "ratio", "query_hashes")


def _telling(settings: Mapping[str, Any]) -> list[str]:
    known = [name for name in _FIRST if name in settings]
    return known or [name for name, value in settings.items() if not isinstance(value, (dict, type(None)))][:3]


def _brief(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "x".join(map(_brief, value)) if len(value) == 2 else "/".join(map(_brief, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
