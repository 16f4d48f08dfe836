"""What a user wants of a setting."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import ConfigError

Cost = Literal["latency", "throughput", "gflops", "memory"]
COSTS: tuple[Cost, ...] = get_args(Cost)


@dataclass(frozen=True)
class Goal:
    """Limits, and what decides among the settings that keep them.

    With ``max_loss`` the fastest is wanted, by the cost ``by``; without it the best mIoU.

    Args:
        max_loss: Most points of mIoU that may be lost against the unreduced model.
        min_throughput: Least images per second.
        max_latency: Most milliseconds at batch 1.
        max_memory: Most MiB of peak memory at batch 1.
        by: What ``fastest`` means.
        by_estimate: Whether the limits apply to the estimates instead of the confidence bound of the loss and the third
            quartiles of the times.
        confidence: Of the loss's bound and interval.

    Raises:
        ConfigError: There is no limit, or a number is out of its range.
    """

    max_loss: float | None = None
    min_throughput: float | None = None
    max_latency: float | None = None
    max_memory: float | None = None
    by: Cost = "latency"
    by_estimate: bool = False
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.limits == ():
            raise ConfigError(
                "recommend needs a goal: give --max_loss, --min_throughput, --max_latency or --max_memory, or several"
            )
        for name in self.limits:
            value = getattr(self, name)
            least = "0 or more" if name == "max_loss" else "above 0"
            if not math.isfinite(value) or value < 0 or (value == 0 and name != "max_loss"):
                raise ConfigError(f"--{name} is {value}: it must be {least}")
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(f"--confidence is {self.confidence}: it must be from 0.5 to below 1, such as 0.95")

    @property
    def limits(self) -> tuple[str, ...]:
        """Names of the limits that are set."""
        names = ("max_loss", "min_throughput", "max_latency", "max_memory")
        return tuple(name for name in names if getattr(self, name) is not None)

    @property
    def of_speed(self) -> tuple[str, ...]:
        """Names of those that only a benchmark can tell."""
        return tuple(name for name in self.limits if name != "max_loss")

    @property
    def fastest(self) -> bool:
        """Whether the fastest is wanted, not the best mIoU."""
        return self.max_loss is not None

    def words(self) -> str:
        """Say the goal in a sentence's part."""
        texts = {
            "max_loss": "at most {:g} points of mIoU lost",
            "min_throughput": "at least {:g} images/s",
            "max_latency": "at most {:g} ms at batch 1",
            "max_memory": "at most {:g} MiB at batch 1",
        }
        limits = ", ".join(texts[name].format(getattr(self, name)) for name in self.limits)
        wanted = {
            "latency": "the shortest latency",
            "throughput": "the most images/s",
            "gflops": "the fewest GFLOPs",
            "memory": "the least memory",
        }
        return f"{limits}; then {wanted[self.by] if self.fastest else 'the best mIoU'}"
