"""The benchmark of one model with its reducer against the same model without."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from ..evaluation.device_memory import free_cached_memory, out_of_memory
from ..models.segmenter.model import Segmenter
from .costs import Costs, count_costs
from .crops import CropSource, require_content
from .kernels import attention_kernels
from .memory import peak_memory_mib
from .sides import Compile, Precision, Side, input_dtype, make_sides
from .throughput import BatchChoice, find_batch_size
from .timing import Budget, Stopwatch, describe_latency, describe_speedup, quantiles, time_in_turns

Result = TypeVar("Result")
_LATENCY_SHARE, _SEARCH_SHARE, _THROUGHPUT_SHARE = 0.5, 0.2, 0.3  # of the time budget

_COMPILED_WARMUP = 3  # passes: to compile, to record a graph, to replay it


@dataclass(frozen=True)
class BenchmarkSettings:
    """How to measure.

    Args:
        device: Where to compute.
        precision: As Lightning names it.
        batch_size: Images per batch of the throughput; ``auto`` searches, 1 takes the latency's figures.
        compiled: Whether to compile, or the mode of ``torch.compile``.
        iterations: Pairs of unreduced and reduced passes to time.
        seconds: Time for all of it; at least `timing.FEWEST_PAIRS` pairs are timed whatever it says.
        warmup: Passes of each side before any is timed.
    """

    device: torch.device
    precision: Precision = "32-true"
    batch_size: int | Literal["auto"] = "auto"
    compiled: Compile = False
    iterations: int = 20
    seconds: float = 60.0
    warmup: int = 2


class Benchmark:
    """Measures a model.

    Args:
        model: The model with its reducer, in float32 on the device; its weights are converted to the precision.
        crops: Gives the input.
        settings: How to measure.
        progress: Told, in a few words, what is being done.
    """

    def __init__(
        self, model: Segmenter, crops: CropSource, settings: BenchmarkSettings, progress: Callable[[str], None]
    ) -> None:
        self.crops = crops
        self.settings = settings
        self.progress = progress
        self.stopwatch = Stopwatch(settings.device)
        progress("counting")
        self.costs: Costs = count_costs(model, crops.batch(0, 1).to(settings.device))
        self.sides: list[Side] = make_sides(model, settings.precision, settings.device, settings.compiled)

    def measure(self) -> dict[str, Any]:
        """Give the row's figures: counts, latency, efficiency, throughput and peak memory."""
        settings = self.settings
        self.progress("warming up")
        image = self.input(0, 1)
        self.warm_up(image)
        self.progress("latency")
        latency = self.time(1, Budget(settings.iterations, _LATENCY_SHARE * settings.seconds))
        described = self.describe(latency)
        before = self.costs.unreduced.tokens
        tokens = self.costs.reduced.tokens if self.costs.reduced else before
        return {
            "gflops": self.costs.gflops(),
            "true_gflops": self.costs.true_gflops(),
            "counted_on": "the first crop" if self.costs.by_content else "shapes alone",
            "tokens": {
                "unreduced": before.attention[0],
                "attention": tokens.attention,
                "mlp": tokens.mlp,
                "decoder": tokens.decoder,
            },
            "latency": described,
            "efficiency": self.efficiency(described["speedup"]),
            "throughput": self.throughput(latency),
            "peak_memory_mib": self.each(partial(self.peak_memory, image=image)),
            "peak_memory_pass": self.peak_memory_pass,
            "attention_kernels": self.each(lambda side: attention_kernels(partial(side.window_uncompiled, image))),
        }

    @property
    def peak_memory_pass(self) -> Literal["timed", "uncompiled"]:
        """Which pass's peak memory is measured: that of a CUDA graph's replay would lack all that the graph holds."""
        return "uncompiled" if self.settings.compiled == "reduce-overhead" else "timed"

    def peak_memory(self, side: Side, image: Tensor) -> float | None:
        """Give the peak memory of a side's pass in MiB; see `peak_memory_pass`."""
        window = side.window if self.peak_memory_pass == "timed" else side.window_uncompiled
        return peak_memory_mib(partial(window, image), self.settings.device)

    def each(self, examine: Callable[[Side], Result]) -> dict[str, Result | None]:
        """Examine each side."""
        found = [examine(side) for side in self.sides]
        return {"unreduced": found[0], "reduced": found[1] if len(found) > 1 else None}

    def input(self, start: int, count: int) -> Tensor:
        """Give a batch of real crops on the device, in the type that the model takes."""
        images = require_content(self.crops.batch(start, count))
        return images.to(self.settings.device, input_dtype(self.settings.precision))

    def warm_up(self, images: Tensor) -> None:
        """Run both sides untimed; compiled ones often enough for a CUDA graph to be recorded."""
        for _ in range(max(self.settings.warmup, _COMPILED_WARMUP if self.settings.compiled else 1)):
            for side in self.sides:
                side.window(images)

    def time(self, size: int, budget: Budget) -> list[list[float]]:
        """Time the sides in turns on batches of a size; both sides of a pair get the same crops."""
        sides = [side.window for side in self.sides]
        return time_in_turns(sides, lambda number: self.input(number * size, size), self.stopwatch, budget)

    def describe(self, seconds: list[list[float]]) -> dict[str, Any]:
        """Describe times of the sides; a model without a reducer is as fast as itself."""
        alone = len(seconds) == 1
        return {
            "unreduced": describe_latency(seconds[0]),
            "reduced": None if alone else describe_latency(seconds[1]),
            "speedup": describe_speedup(seconds[0], seconds[0]) | {"pairs": 0} if alone else describe_speedup(*seconds),
            "seconds": {"unreduced": seconds[0], "reduced": None if alone else seconds[1]},
        }

    def efficiency(self, speedup: dict[str, Any]) -> float | None:
        """Give how much of the reduction in FLOPs became speed."""
        ratio = self.costs.ratio
        return None if ratio is None else speedup["median"] / ratio

    def throughput(self, latency: list[list[float]]) -> dict[str, Any]:
        """Give images per second at a larger batch."""
        choice, seconds = self._choose_batch(), latency
        if choice.size > 1:
            self.progress(f"throughput at batch {choice.size}")
            choice, seconds = self._time_batch(choice, latency)
        described = self.describe(seconds)
        rates = [choice.size / quantiles(side, 0.5)[0] for side in seconds]
        return {
            "batch_size": choice.size,
            "chosen": choice.because,
            "unreduced": rates[0],
            "reduced": rates[1] if len(rates) > 1 else None,
            "speedup": described["speedup"],
            "efficiency": self.efficiency(described["speedup"]),
            "seconds": described["seconds"],
        }

    def _time_batch(self, choice: BatchChoice, latency: list[list[float]]) -> tuple[BatchChoice, list[list[float]]]:
        """Time a batch, or half of it while memory runs out."""
        budget = Budget(self.settings.iterations, _THROUGHPUT_SHARE * self.settings.seconds)
        while choice.size > 1:
            try:
                self.warm_up(self.input(0, choice.size))
                return choice, self.time(choice.size, budget)
            except Exception as error:
                if not out_of_memory(error):
                    raise
            free_cached_memory()
            choice = BatchChoice(choice.size // 2, "memory")
        return choice, latency

    def _choose_batch(self) -> BatchChoice:
        if self.settings.batch_size != "auto":
            return BatchChoice(self.settings.batch_size, "given")
        self.progress("searching the batch size")
        end = time.perf_counter() + _SEARCH_SHARE * self.settings.seconds
        return find_batch_size(self._time_uncompiled, lambda: end - time.perf_counter())

    def _time_uncompiled(self, size: int) -> list[float]:
        """Time the second of two passes of each side; compiling for every size that is tried would take too long."""
        images = self.input(0, size)
        for side in self.sides:
            side.window_uncompiled(images)
        return [self.stopwatch.seconds(partial(side.window_uncompiled, images)) for side in self.sides]
