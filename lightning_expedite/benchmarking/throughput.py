"""The batch at which a model labels the most images per second."""

from collections.abc import Callable
from typing import NamedTuple

from ..evaluation.device_memory import free_cached_memory, out_of_memory

LEAST_GAIN = 1.03
LARGEST_BATCH = 4096


class BatchChoice(NamedTuple):
    """A batch size and why it is not larger: ``gain``, ``memory``, ``time`` or ``largest``."""

    size: int
    because: str


def find_batch_size(seconds: Callable[[int], list[float]], time_left: Callable[[], float]) -> BatchChoice:
    """Double the batch until no side gains 3% in images per second, memory runs out or time does.

    Args:
        seconds: Times a batch of a size, once for each side.
        time_left: Seconds that are left for the search.

    Returns:
        The largest size that was a gain over half of it.
    """
    size, rates = 1, _rates(1, seconds(1))
    while size < LARGEST_BATCH:
        if time_left() < 4 * sum(size / rate for rate in rates):  # twice the batch, and as long again to measure it
            return BatchChoice(size, "time")
        try:
            doubled = _rates(2 * size, seconds(2 * size))
        except Exception as error:
            if not out_of_memory(error):
                raise
            free_cached_memory()
            return BatchChoice(size, "memory")
        if all(new < LEAST_GAIN * old for new, old in zip(doubled, rates, strict=True)):
            return BatchChoice(size, "gain")
        size, rates = 2 * size, doubled
    return BatchChoice(size, "largest")


def _rates(size: int, seconds: list[float]) -> list[float]:
    return [size / side for side in seconds]
