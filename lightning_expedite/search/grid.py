"""Grid files: reducers and settings, and the points that they define."""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ConfigError, nearest
from ..files import read_yaml

BASELINE = "none"
_MAX_NAME = 80
_MAX_POINTS = 10_000  # per entry


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    class_path: str = Field(min_length=1)
    name: str | None = Field(None, pattern="^[A-Za-z0-9][A-Za-z0-9_.-]*$")  # usable as a file name
    init_args: dict[str, Any] = {}
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] | None = Field(None, min_length=1)
    points: list[dict[str, Any]] | None = Field(None, min_length=1)


@dataclass(frozen=True)
class GridPoint:
    """One setting of one reducer as the grid writes it; ``reducer`` is ``None`` for the baseline."""

    name: str
    reducer: dict[str, Any] | None  # class_path and init_args
    origin: str  # where in the file, for messages


def read_grid(path: Path) -> tuple[list[dict[str, Any]], list[GridPoint]]:
    """Read a grid file.

    It is a list of entries. An entry has ``class_path``, the reducer's class by its name or path, and may have
    ``init_args``, settings of all its points; ``grid``, a list of values for each setting that varies, all of which are
    combined; ``points``, a list of further settings; and ``name``, which replaces the class in the points' names.

    Returns:
        The entries as written, and their points after the baseline.

    Raises:
        ConfigError: The file cannot be read, an entry is not as described, or two points have the same name.
    """
    try:
        entries = read_yaml(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        hint = nearest(path.name, (file.name for file in path.parent.glob("*.yaml")))
        raise ConfigError(f"--grid {path} cannot be read: {' '.join(str(error).split())}{hint}") from error
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"--grid {path} must be a list of entries, each with class_path and settings")
    points = [GridPoint(BASELINE, None, "the baseline")]
    for number, content in enumerate(entries, start=1):
        origin = f"entry {number}"
        if isinstance(content, dict) and isinstance(content.get("class_path"), str):
            origin += f" ({content['class_path'].rpartition('.')[2]})"
        try:
            entry = _parse(content)
            prefix = entry.name or entry.class_path.rpartition(".")[2].lower()
            for settings in _expand(entry):
                reducer = {"class_path": entry.class_path, "init_args": settings}
                points.append(GridPoint(point_name(prefix, settings), reducer, origin))
        except ConfigError as error:
            raise ConfigError(f"--grid {path}: {origin}: {error}") from error
    first: dict[str, GridPoint] = {}
    for point in points:
        other = first.setdefault(point.name.casefold(), point)  # some file systems ignore case
        if other is not point:
            raise ConfigError(
                f"--grid {path}: {point.origin} and {other.origin} both have a point {point.name}: remove one, or give "
                "one of the entries another name"
            )
    return entries, points


def point_name(prefix: str, settings: Mapping[str, Any]) -> str:
    """Return a file name made of the settings: ``tome_ratio0.3``; long names end with a checksum."""
    text = "_".join([prefix, *(f"{key}{_text(value)}" for key, value in settings.items())])
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
    if len(name) <= _MAX_NAME:
        return name
    digest = hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()[:8]
    return f"{name[: _MAX_NAME - 9]}-{digest}"


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, (list, tuple)):
        return ("x" if len(value) == 2 else "-").join(map(_text, value))
    return str(value)


def _parse(content: Any) -> _Entry:
    try:
        return _Entry.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"unknown key {key}: an entry has {', '.join(_Entry.model_fields)}") from error
        raise ConfigError(f"{key or 'it'} is {first['input']!r}: {first['msg']}") from error


def _expand(entry: _Entry) -> list[dict[str, Any]]:
    """Return the settings of all points of an entry."""
    varied: list[dict[str, Any]] = []
    if entry.grid is not None:
        if (count := math.prod(map(len, entry.grid.values()))) > _MAX_POINTS:
            raise ConfigError(f"grid has {count:,} points: it must have at most {_MAX_POINTS:,}")
        varied = [dict(zip(entry.grid, values, strict=True)) for values in itertools.product(*entry.grid.values())]
    varied += entry.points or ()
    for settings in varied:
        for name in entry.init_args.keys() & settings.keys():
            raise ConfigError(f"{name} is in init_args and again in grid or points: remove one of them")
    return [{**entry.init_args, **settings} for settings in varied or [{}]]
