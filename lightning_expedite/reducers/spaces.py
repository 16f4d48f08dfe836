"""Ranges of a reducer's settings that a search may vary (`lightning_expedite.reducers.Reducer.search_space`).

A range maps the numbers that an Optuna trial suggests to a value of the setting. For a setting of another kind, write a
class with a method ``suggest``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # importing it takes a second
    from optuna.trial import BaseTrial


class SearchRange(Protocol):
    """The values of one setting."""

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        """Return a value of the setting ``name``, chosen by the trial."""
        ...


@dataclass(frozen=True)
class IntRange:
    """Integers from ``low`` to ``high``."""

    low: int
    high: int
    step: int = 1

    def suggest(self, trial: BaseTrial, name: str) -> int:
        """Return an integer of the range."""
        return trial.suggest_int(name, self.low, self.high, step=self.step)


@dataclass(frozen=True)
class FloatRange:
    """Numbers from ``low`` to ``high`` in steps."""

    low: float
    high: float
    step: float = 0.01

    def suggest(self, trial: BaseTrial, name: str) -> float:
        """Return a number of the range, rounded to undo the rounding errors of ``low + n * step``."""
        return round(trial.suggest_float(name, self.low, self.high, step=self.step), 6)


@dataclass(frozen=True)
class GridRange:
    """Rows and columns in the proportions of ``largest``, with at least ``fewest`` rows."""

    fewest: int
    largest: tuple[int, int]

    def suggest(self, trial: BaseTrial, name: str) -> tuple[int, int]:
        """Return rows and columns; the trial chooses the rows."""
        rows = trial.suggest_int(f"{name}_rows", min(self.fewest, self.largest[0]), self.largest[0])
        return rows, max(round(rows * self.largest[1] / self.largest[0]), 1)


@dataclass(frozen=True)
class LayerChoice:
    """One to ``most`` evenly spaced layers from ``lowest`` to ``highest``."""

    lowest: int
    highest: int
    most: int = 3

    def suggest(self, trial: BaseTrial, name: str) -> tuple[int, ...]:
        """Return the layers; the trial chooses the first, the distance and the number. Those too high are left out."""
        first = trial.suggest_int(f"{name}_first", self.lowest, self.highest)
        gap = trial.suggest_int(f"{name}_gap", 1, max((self.highest - self.lowest) // self.most, 1))
        count = trial.suggest_int(f"{name}_count", 1, self.most)
        return tuple(layer for layer in range(first, first + count * gap, gap) if layer <= self.highest)
