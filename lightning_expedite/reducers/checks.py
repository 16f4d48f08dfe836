"""Checks of reducers' settings, with messages that name the setting."""

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

from ..errors import ReducerError, is_integer

Number = TypeVar("Number", int, float)


def check_positive(name: str, value: Number) -> Number:
    """Return ``value``; raises `ReducerError` unless it is above 0 and finite."""
    if not 0 < value < math.inf:
        raise ReducerError(f"{name}={value} must be above 0, and finite")
    return value


def check_location(location: int, depth: int) -> None:
    """Raise `ReducerError` unless ``location`` is a layer of an encoder with ``depth`` layers."""
    if location not in range(1, depth + 1):
        raise ReducerError(f"location {location!r} is not a layer of this model: its layers are 1 to {depth}")


def layers_of(name: str, value: Iterable[int]) -> tuple[int, ...]:
    """Return layers in ascending order; raises `ReducerError` unless there are some, each an integer and given once."""
    layers = tuple(value) if isinstance(value, Iterable) else ()
    if not layers or not all(map(is_integer, layers)) or len(set(layers)) < len(layers):
        raise ReducerError(f"{name}={value!r} must be a list of layers, each once, such as [4, 7, 10]")
    return tuple(sorted(layers))


def grid_of(name: str, value: tuple[int, int] | int) -> tuple[int, int]:
    """Return ``(rows, columns)`` of one number or a pair; raises `ReducerError` for anything else."""
    grid = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(grid) != 2 or any(not is_integer(side) or side < 1 for side in grid):
        raise ReducerError(f"{name}={value} must be one or two integers of at least 1")
    return grid[0], grid[1]
