"""Timing of one or two calls in turns, and the statistics of what was timed."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

FEWEST_PAIRS = 5  # whatever the time budget says: a median of fewer tells nothing

Input = TypeVar("Input")
Result = TypeVar("Result")


class Stopwatch:
    """Times calls on a device, each alone: a GPU is idle when one begins, and is waited for after it has ended.

    Args:
        device: Where the calls compute.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def seconds(self, call: Callable[[], object]) -> float:
        """Time one call."""
        return self.timed(call)[0]

    def timed(self, call: Callable[[], Result]) -> tuple[float, Result]:
        """Time one call in seconds and give its result."""
        self._wait()
        seconds, result = self.lap(call)
        self._wait()
        return seconds(), result

    def lap(self, call: Callable[[], Result]) -> tuple[Callable[[], float], Result]:
        """Time a call within a longer one, on CUDA between two events and without waiting for the GPU.

        Returns:
            What gives the seconds, once the longer call has been waited for, and the call's result.
        """
        if self.device.type != "cuda":
            start = time.perf_counter()
            result = call()
            seconds = time.perf_counter() - start
            return lambda: seconds, result
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        result = call()
        last.record()
        return lambda: first.elapsed_time(last) / 1000, result

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Budget:
    """How often to time: ``pairs`` times, or fewer where ``seconds`` are over, but never below `FEWEST_PAIRS`."""

    pairs: int
    seconds: float

    def rounds(self) -> Iterator[int]:
        """Count the rounds until the budget is used."""
        start = time.perf_counter()
        for done in range(max(self.pairs, FEWEST_PAIRS)):
            if done >= FEWEST_PAIRS and time.perf_counter() - start >= self.seconds:
                return
            yield done


def time_in_turns(
    sides: Sequence[Callable[[Input], object]],
    prepare: Callable[[int], Input],
    stopwatch: Stopwatch,
    budget: Budget,
) -> list[list[float]]:
    """Time several functions in turns (A B A B ...), so that a drift of the machine meets all of them.

    Args:
        sides: What to time.
        prepare: Makes the input of a round from its number, untimed; all sides get the same.
        stopwatch: Times them.
        budget: How often.

    Returns:
        Seconds of every round, one list a side.
    """
    seconds: list[list[float]] = [[] for _ in sides]
    for number in budget.rounds():
        given = prepare(number)
        for side, times in zip(sides, seconds, strict=True):
            times.append(stopwatch.seconds(partial(side, given)))
    return seconds


def quantiles(values: Sequence[float], *shares: float) -> list[float]:
    """Give quantiles, interpolated linearly between the sorted values."""
    result: list[float] = torch.tensor(values, dtype=torch.float64).quantile(torch.tensor(shares).double()).tolist()
    return result


def describe_latency(seconds: Sequence[float]) -> dict[str, Any]:
    """Give median, quartiles and 95th percentile in milliseconds, and of how many."""
    median, first, third, p95 = (1000 * value for value in quantiles(seconds, 0.5, 0.25, 0.75, 0.95))
    return {"median_ms": median, "q1_ms": first, "q3_ms": third, "p95_ms": p95, "n": len(seconds)}


def describe_speedup(unreduced: Sequence[float], reduced: Sequence[float]) -> dict[str, Any]:
    """Give median, quartiles and range of the ratios within each pair, and how many pairs there are."""
    ratios = [one / other for one, other in zip(unreduced, reduced, strict=True)]
    median, first, third = quantiles(ratios, 0.5, 0.25, 0.75)
    return {"median": median, "q1": first, "q3": third, "min": min(ratios), "max": max(ratios), "pairs": len(ratios)}
