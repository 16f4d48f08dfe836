"""Ranges of a reducer's settings that a search may vary (`lightning_expedite.reducers.Reducer.search_space`).

A range maps the numbers that an Optuna trial suggests to a value of the setting. For a setting of another kind, write a
class with a method ``suggest``.
"""

import warnings
from dataclasses import dataclass
from typing import Any, Protocol


class Trial(Protocol):
    """The two methods of ``optuna.Trial`` that ranges use."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        """Suggest an integer from ``low`` to ``high``, both included."""
        ...

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None) -> float:
        """Suggest a number from ``low`` to ``high``, both included."""
        ...


class SearchRange(Protocol):
    """The values of one setting."""

    def suggest(self, trial: Trial, name: str) -> Any:
        """Return a value of the setting ``name``, chosen by the trial."""
        ...


@dataclass(frozen=True)
class IntRange:
    """Integers from ``low`` to ``high``."""

    low: int
    high: int
    step: int = 1

    def suggest(self, trial: Trial, name: str) -> int:
        """Return an integer of the range."""
        return trial.suggest_int(name, self.low, self.high, step=self.step)


@dataclass(frozen=True)
class FloatRange:
    """Numbers from ``low`` to ``high`` in steps."""

    low: float
    high: float
    step: float = 0.01

    def suggest(self, trial: Trial, name: str) -> float:
        """Return a number of the range, rounded to undo the rounding errors of ``low + n * step``."""
        return round(trial.suggest_float(name, self.low, self.high, step=self.step), 6)


@dataclass(frozen=True)
class GridRange:
    """Rows and columns in the proportions of ``largest``, with at least ``fewest`` rows."""

    fewest: int
    largest: tuple[int, int]

    def suggest(self, trial: Trial, name: str) -> tuple[int, int]:
        """Return rows and columns; the trial chooses the rows."""
        rows = trial.suggest_int(f"{name}_rows", min(self.fewest, self.largest[0]), self.largest[0])
        return rows, max(round(rows * self.largest[1] / self.largest[0]), 1)


@dataclass(frozen=True)
class LayerChoice:
    """One to ``most`` evenly spaced layers from ``lowest`` to ``highest``."""

    lowest: int
    highest: int
    most: int = 3

    def suggest(self, trial: Trial, name: str) -> tuple[int, ...]:
        """Return the layers; the trial chooses the first, the distance and the number. Those too high are left out."""
        first = trial.suggest_int(f"{name}_first", self.lowest, self.highest)
        gap = trial.suggest_int(f"{name}_gap", 1, max((self.highest - self.lowest) // self.most, 1))
        count = trial.suggest_int(f"{name}_count", 1, self.most)
        return tuple(layer for layer in range(first, first + count * gap, gap) if layer <= self.highest)


_RENAMED = {"Span": SearchRange, "Whole": IntRange, "Share": FloatRange, "Grid": GridRange, "Layers": LayerChoice}


def __getattr__(name: str) -> Any:
    """Return a range by its former name."""
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    new = _RENAMED[name]
    warnings.warn(f"reducers.spaces.{name} is now {new.__name__}", DeprecationWarning, stacklevel=2)
    return new
