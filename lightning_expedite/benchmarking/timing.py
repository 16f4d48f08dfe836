"""Interleaved timing of the variants, the statistics of the times, and the search for a batch size."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch

from ..evaluation.device_memory import free_cached_memory, out_of_memory

FEWEST_PAIRS = 5  # however short the time budget is: a median of fewer means nothing
LEAST_GAIN = 1.03
LARGEST_BATCH = 4096

Input = TypeVar("Input")


class Interval:
    """Time of a ``with`` block, on CUDA between two events and without waiting for the GPU.

    Args:
        device: Where the block computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def __enter__(self) -> "Interval":
        """Start the clock."""
        self._start = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the clock."""
        self._end = self._now()

    @property
    def seconds(self) -> float:
        """Seconds of the block; on CUDA once the device has been synchronized."""
        return self._start.elapsed_time(self._end) / 1000 if self._cuda else float(self._end - self._start)

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def time_call(device: torch.device, call: Callable[..., object], *arguments: Any) -> float:
    """Return the seconds of one call: a GPU is idle when it begins, and is waited for after it."""
    synchronize(device)
    with Interval(device) as interval:
        call(*arguments)
    synchronize(device)
    return interval.seconds


def synchronize(device: torch.device) -> None:
    """Wait for a GPU; return at once on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count_rounds(pairs: int, seconds: float) -> Iterator[int]:
    """Count up to ``pairs``, or less far once ``seconds`` are over, but at least to `FEWEST_PAIRS`."""
    start = time.perf_counter()
    for done in range(max(pairs, FEWEST_PAIRS)):
        if done >= FEWEST_PAIRS and time.perf_counter() - start >= seconds:
            return
        yield done


def time_interleaved(
    variants: Sequence[Callable[[Input], object]],
    prepare: Callable[[int], Input],
    device: torch.device,
    rounds: Iterable[int],
) -> list[list[float]]:
    """Time several functions alternately (A/B/A/B), so that a drift of the machine affects all of them.

    Args:
        variants: The functions.
        prepare: Returns the input of a round from its number, untimed; all functions get the same.
        device: Where they compute.
        rounds: Numbers of the rounds.

    Returns:
        Seconds of every round, one list per function.
    """
    seconds: list[list[float]] = [[] for _ in variants]
    for number in rounds:
        images = prepare(number)
        for variant, times in zip(variants, seconds, strict=True):
            times.append(time_call(device, variant, images))
    return seconds


def quantiles(values: Sequence[float], *shares: float) -> list[float]:
    """Return quantiles, interpolated linearly between the sorted values."""
    result: list[float] = torch.tensor(values, dtype=torch.float64).quantile(torch.tensor(shares).double()).tolist()
    return result


def describe_latency(seconds: Sequence[float]) -> dict[str, Any]:
    """Return median, quartiles and 95th percentile in milliseconds, and the number of values."""
    median, first, third, p95 = (1000 * value for value in quantiles(seconds, 0.5, 0.25, 0.75, 0.95))
    return {"median_ms": median, "q1_ms": first, "q3_ms": third, "p95_ms": p95, "n": len(seconds)}


def describe_speedup(baseline: Sequence[float], reduced: Sequence[float]) -> dict[str, Any]:
    """Return median, quartiles and range of the ratios within each pair, and the number of pairs."""
    ratios = [before / after for before, after in zip(baseline, reduced, strict=True)]
    median, first, third = quantiles(ratios, 0.5, 0.25, 0.75)
    return {"median": median, "q1": first, "q3": third, "min": min(ratios), "max": max(ratios), "pairs": len(ratios)}


class BatchChoice(NamedTuple):
    """A batch size and why it is not larger: ``gain``, ``memory``, ``time``, ``largest`` (or ``given``)."""

    size: int
    because: str


def find_batch_size(seconds: Callable[[int], list[float]], time_left: Callable[[], float]) -> BatchChoice:
    """Double the batch until no variant gains 3% in images per second, or memory or time runs out.

    Args:
        seconds: Times a batch of a size, once for each variant.
        time_left: Returns the seconds that are left for the search.

    Returns:
        The largest size that was a gain over half of it.
    """
    size, rates = 1, [1 / each for each in seconds(1)]
    while size < LARGEST_BATCH:
        if time_left() < 4 * sum(size / rate for rate in rates):  # twice the batch, and as long again to measure it
            return BatchChoice(size, "time")
        try:
            doubled = [2 * size / each for each in seconds(2 * size)]
        except Exception as error:
            if not out_of_memory(error):
                raise
            free_cached_memory()
            return BatchChoice(size, "memory")
        if all(new < LEAST_GAIN * old for new, old in zip(doubled, rates, strict=True)):
            return BatchChoice(size, "gain")
        size, rates = 2 * size, doubled
    return BatchChoice(size, "largest")
