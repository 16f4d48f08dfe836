"""Ranges in which a reducer's settings are worth searching; a reducer declares them in ``Reducer.search_space``.

A `Span` asks a trial, which is one of Optuna's or anything with its two methods, for numbers and makes a setting's
value of them. For a setting of another kind, write a class with ``suggest``.
"""

from dataclasses import dataclass
from typing import Any, Protocol


class Trial(Protocol):
    """What chooses numbers."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        """Choose a whole number from ``low`` to ``high``."""
        ...

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None) -> float:
        """Choose a number from ``low`` to ``high``."""
        ...


class Span(Protocol):
    """The values that one setting may have."""

    def suggest(self, trial: Trial, name: str) -> Any:
        """Let a trial choose a value of the setting ``name``."""
        ...


@dataclass(frozen=True)
class Whole:
    """Whole numbers from ``low`` to ``high``."""

    low: int
    high: int
    step: int = 1

    def suggest(self, trial: Trial, name: str) -> int:
        """Choose a number."""
        return trial.suggest_int(name, self.low, self.high, step=self.step)


@dataclass(frozen=True)
class Share:
    """Numbers from ``low`` to ``high`` in steps."""

    low: float
    high: float
    step: float = 0.01

    def suggest(self, trial: Trial, name: str) -> float:
        """Choose a number; sums of steps are rounded to what they stand for."""
        return round(trial.suggest_float(name, self.low, self.high, step=self.step), 6)


@dataclass(frozen=True)
class Grid:
    """Rows and columns in the proportions of ``largest``, from ``fewest`` rows on."""

    fewest: int
    largest: tuple[int, int]

    def suggest(self, trial: Trial, name: str) -> tuple[int, int]:
        """Choose the rows; the columns follow."""
        rows = trial.suggest_int(f"{name}_rows", min(self.fewest, self.largest[0]), self.largest[0])
        return rows, max(round(rows * self.largest[1] / self.largest[0]), 1)


@dataclass(frozen=True)
class Layers:
    """One to ``most`` layers from ``lowest`` to ``highest``, evenly spaced."""

    lowest: int
    highest: int
    most: int = 3

    def suggest(self, trial: Trial, name: str) -> tuple[int, ...]:
        """Choose the first layer, the distance and the number; layers beyond the highest are left out."""
        first = trial.suggest_int(f"{name}_first", self.lowest, self.highest)
        gap = trial.suggest_int(f"{name}_gap", 1, max((self.highest - self.lowest) // self.most, 1))
        count = trial.suggest_int(f"{name}_count", 1, self.most)
        return tuple(layer for layer in range(first, first + count * gap, gap) if layer <= self.highest)
