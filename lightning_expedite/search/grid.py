"""Grids: files that list reducers and settings, and the points that they stand for."""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError
from ..files import read_yaml

UNREDUCED = "none"
_KEYS = ("class_path", "name", "init_args", "grid", "points")
_LONGEST_NAME = 80
_MOST_POINTS = 10_000  # of an entry: a day's work for every machine there is
_FILE_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Point:
    """One setting of one reducer, as the grid writes it; without a class it is the unreduced model."""

    name: str
    class_path: str | None
    init_args: Mapping[str, Any]
    origin: str  # where in the file it stands, in words

    @property
    def reducer(self) -> dict[str, Any] | None:
        """``class_path`` and ``init_args``, as a config has them."""
        if self.class_path is None:
            return None
        return {"class_path": self.class_path, "init_args": dict(self.init_args)}


@dataclass(frozen=True)
class Grid:
    """A grid file: its entries as they are written, and its points, the unreduced model first."""

    path: Path
    entries: list[dict[str, Any]]
    points: list[Point]


def read_grid(path: Path) -> Grid:
    """Read a grid file.

    It is a list of entries. An entry has ``class_path``, the reducer's class by its name or path, and may have
    ``init_args``, settings that all its points share; ``grid``, a list of values for each setting that varies, all of
    which are combined; ``points``, further points as a list of settings; ``name``, what its points' names begin with
    instead of the class's.

    Raises:
        ConfigError: The file cannot be read, or an entry is not as described; two points are alike.
    """
    entries = _load(path)
    points = [Point(UNREDUCED, None, {}, "the unreduced model")]
    for number, entry in enumerate(entries, start=1):
        origin = f"entry {number}"
        if isinstance(entry, dict) and isinstance(entry.get("class_path"), str):
            origin += f" ({entry['class_path'].rpartition('.')[2]})"
        try:
            points += points_of(entry, origin)
        except ConfigError as error:
            raise ConfigError(f"--grid {path}: {origin}: {error}") from error
    _require_unique(path, points)
    return Grid(path, entries, points)


def points_of(entry: Any, origin: str) -> list[Point]:
    """Give the points of one entry.

    Raises:
        ConfigError: The entry has an unknown key or a value of another shape.
    """
    _check_entry(entry)
    prefix = entry.get("name") or entry["class_path"].rpartition(".")[2].lower()
    return [Point(point_name(prefix, settings), entry["class_path"], settings, origin) for settings in _settings(entry)]


def point_name(prefix: str, settings: Mapping[str, Any]) -> str:
    """Make a name, usable as a file's, from what a point's settings begin with and all settings that it gives.

    ``ToMe`` with a ratio of 0.3 is ``tome_ratio0.3``, 8 by 8 clusters are ``clusters8x8``. Very long names end with a
    checksum instead.
    """
    text = "_".join([prefix, *(f"{key}{_text(value)}" for key, value in settings.items())])
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - 9]}-{digest}"


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, (list, tuple)):
        return ("x" if len(value) == 2 else "-").join(map(_text, value))
    if isinstance(value, dict):
        return "-".join(f"{key}{_text(item)}" for key, item in value.items())
    return str(value)


def _settings(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    fixed, varied, listed = entry.get("init_args") or {}, entry.get("grid"), entry.get("points")
    if varied is None and listed is None:
        yield dict(fixed)
    if varied is not None:
        for values in itertools.product(*varied.values()):
            yield {**fixed, **dict(zip(varied, values, strict=True))}
    for settings in listed or ():
        yield {**fixed, **settings}


def _load(path: Path) -> list[Any]:
    try:
        content = read_yaml(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--grid {path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, list) or not content:
        raise ConfigError(f"--grid {path} must be a list of entries, each with class_path and settings")
    return content


def _check_entry(entry: Any) -> None:
    if not isinstance(entry, dict):
        raise ConfigError(f"{entry!r} must be a mapping with class_path")
    unknown = [str(key) for key in entry if key not in _KEYS]
    if unknown:
        raise ConfigError(f"{unknown[0]} is no key of an entry; there are {', '.join(_KEYS)}")
    if not isinstance(entry.get("class_path"), str) or not entry["class_path"]:
        raise ConfigError("class_path must name a reducer's class, such as ToMe or my_package.pooling.TokenPooling")
    name = entry.get("name")
    if name is not None and not (isinstance(name, str) and _FILE_SAFE.fullmatch(name)):
        raise ConfigError(f"name is {name!r}: it must be of letters, digits and _ . -, as file names are")
    _check_settings("init_args", entry.get("init_args") or {})
    _check_varied(entry)
    _check_listed(entry)


def _check_settings(key: str, settings: Any) -> None:
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise ConfigError(f"{key} must be a mapping from settings to values, not {settings!r}")


def _check_varied(entry: Mapping[str, Any]) -> None:
    if "grid" not in entry:
        return
    _check_settings("grid", entry["grid"])
    if not entry["grid"]:
        raise ConfigError("grid is empty: give at least one setting with a list of values, or leave grid out")
    for name, values in entry["grid"].items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"grid.{name} must be a list of at least one value, not {values!r}")
        _require_once(entry, name, "grid")
    number = math.prod(map(len, entry["grid"].values()))
    if number > _MOST_POINTS:
        raise ConfigError(f"grid has {number:,} points: it must have at most {_MOST_POINTS:,}")


def _check_listed(entry: Mapping[str, Any]) -> None:
    if "points" not in entry:
        return
    if not isinstance(entry["points"], list) or not entry["points"]:
        raise ConfigError("points must be a list of at least one mapping from settings to values")
    for number, settings in enumerate(entry["points"], start=1):
        _check_settings(f"points, number {number},", settings)
        for name in settings:
            _require_once(entry, name, "points")


def _require_once(entry: Mapping[str, Any], name: str, key: str) -> None:
    if name in (entry.get("init_args") or {}):
        raise ConfigError(f"{name} stands in both init_args and {key}: leave it in one of them")


def _require_unique(path: Path, points: list[Point]) -> None:
    first: dict[str, Point] = {}
    for point in points:
        other = first.setdefault(point.name.casefold(), point)  # some file systems do not tell capitals apart
        if other is not point:
            raise ConfigError(
                f"--grid {path}: {point.origin} has the point {point.name}, which {other.origin} has already; "
                "leave one out, or give one of the entries another name"
            )
