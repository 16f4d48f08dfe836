"""The benchmark of a model with its reducer against the same model without: the baseline."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from ..errors import ConfigError
from ..evaluation.device_memory import free_cached_memory, out_of_memory
from ..models.segmenter.model import Segmenter
from .costs import attention_kernels, count_costs
from .crops import CropSource
from .memory import peak_memory_mib
from .timing import (
    FEWEST_PAIRS,
    BatchChoice,
    count_rounds,
    describe_latency,
    describe_speedup,
    find_batch_size,
    quantiles,
    time_call,
    time_interleaved,
)
from .variants import Compile, Precision, Variant, choose_device, input_dtype, make_variants

Result = TypeVar("Result")
_LATENCY_SHARE, _SEARCH_SHARE, _THROUGHPUT_SHARE = 0.5, 0.2, 0.3  # of the time budget
_COMPILED_WARMUP = 3  # passes: to compile, to record a CUDA graph, to replay it


@dataclass(frozen=True)
class BenchmarkSettings:
    """How to measure.

    Args:
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.
        precision: As Lightning's trainer names it.
        batch_size: Images per batch of the throughput; ``auto`` searches, 1 repeats the latency's figures.
        compile: ``torch.compile`` for both variants: false, true or a mode.
        iterations: Pairs of baseline and reduced passes to time.
        seconds: Time limit per model; at least 5 pairs are timed in any case.
        warmup: Untimed passes of each variant before the first pair.

    Raises:
        ConfigError: A value is out of range, or the device is not available.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "32-true"
    batch_size: int | Literal["auto"] = "auto"
    compile: Compile = False
    iterations: int = 20
    seconds: float = 60.0
    warmup: int = 2

    def __post_init__(self) -> None:
        """Check the values."""
        for name, least in (("iterations", FEWEST_PAIRS), ("warmup", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be {least} or more")
        if self.batch_size != "auto" and self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}: it must be auto, or 1 or more")
        if not (self.seconds >= 0 and math.isfinite(self.seconds)):
            raise ConfigError(f"seconds is {self.seconds}: it must be 0 or more")
        choose_device(self.device)

    @property
    def torch_device(self) -> torch.device:
        """The device that ``device`` means on this machine."""
        return choose_device(self.device)


def compare(
    model: Segmenter,
    crops: CropSource,
    settings: BenchmarkSettings,
    progress: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """Benchmark a model with its reducer against the same model without.

    Args:
        model: The model with its reducer, in float32. It is moved to the device, and its weights are converted to the
            precision.
        crops: The input.
        settings: How to measure.
        progress: Called with the name of each step.

    Returns:
        A row of ``benchmark.json``: FLOPs, tokens, latency, efficiency, throughput, peak memory and attention kernels,
        of the baseline under ``unreduced`` and of the model with its reducer under ``reduced``.

    Raises:
        ConfigError: This PyTorch version does not compile the reducer correctly.
    """
    return _Comparison(model, crops, settings, progress).measure()


class _Comparison:
    def __init__(
        self, model: Segmenter, crops: CropSource, settings: BenchmarkSettings, progress: Callable[[str], None]
    ) -> None:
        self.crops = crops
        self.settings = settings
        self.progress = progress
        self.device = settings.torch_device
        progress("counting")
        model.to(self.device)
        self.costs = count_costs(model, crops.batch(0, 1).to(self.device))
        self.variants = make_variants(model, settings.precision, self.device, settings.compile)

    def measure(self) -> dict[str, Any]:
        self.progress("warming up")
        image = self.input(0, 1)
        kernels = self.each(lambda variant: attention_kernels(lambda: variant.window_uncompiled(image)))
        self.warm_up(image, self.settings.warmup - 2)  # the passes above and below are untimed as well
        memory = self.each(lambda variant: self.peak_memory(variant, image))
        self.progress("latency")
        seconds = self.time(1, _LATENCY_SHARE)
        latency = self.describe(seconds)
        return {
            **self.costs,
            "latency": latency,
            "efficiency": self.efficiency(latency["speedup"]),
            "throughput": self.throughput(seconds),
            "peak_memory_mib": memory,
            "peak_memory_pass": self.peak_memory_pass,
            "peak_memory_source": "allocator" if self.device.type == "cuda" else "live tensors",
            "attention_kernels": kernels,
        }

    @property
    def peak_memory_pass(self) -> Literal["timed", "uncompiled"]:
        """Which pass's peak memory is measured: replaying a CUDA graph allocates nothing, and CPUs need operators."""
        by_operator = self.device.type == "cpu" or self.settings.compile == "reduce-overhead"
        return "uncompiled" if self.settings.compile and by_operator else "timed"

    def peak_memory(self, variant: Variant, image: Tensor) -> float:
        window = variant.window if self.peak_memory_pass == "timed" else variant.window_uncompiled
        return peak_memory_mib(variant.model, lambda: window(image), self.device)

    def each(self, examine: Callable[[Variant], Result]) -> dict[str, Result | None]:
        found = [examine(variant) for variant in self.variants]
        return {"unreduced": found[0], "reduced": found[1] if len(found) > 1 else None}

    def input(self, start: int, count: int) -> Tensor:
        """Return a batch of crops on the device, in the dtype that the model takes."""
        return self.crops.batch(start, count).to(self.device, input_dtype(self.settings.precision))

    def warm_up(self, images: Tensor, passes: int) -> None:
        """Run the variants untimed; compiled ones often enough for a CUDA graph to be recorded."""
        for _ in range(max(passes, _COMPILED_WARMUP if self.settings.compile else 0)):
            for variant in self.variants:
                variant.window(images)

    def time(self, size: int, share: float) -> list[list[float]]:
        """Time the variants alternately on batches of a size, within a share of the time budget."""
        rounds = count_rounds(self.settings.iterations, share * self.settings.seconds)
        windows = [variant.window for variant in self.variants]
        return time_interleaved(windows, lambda number: self.input(number * size, size), self.device, rounds)

    def describe(self, seconds: list[list[float]]) -> dict[str, Any]:
        """Return the statistics of the variants' times; a model without a reducer is as fast as itself."""
        alone = len(seconds) == 1
        return {
            "unreduced": describe_latency(seconds[0]),
            "reduced": None if alone else describe_latency(seconds[1]),
            "speedup": describe_speedup(seconds[0], seconds[0]) | {"pairs": 0} if alone else describe_speedup(*seconds),
            "seconds": {"unreduced": seconds[0], "reduced": None if alone else seconds[1]},
        }

    def efficiency(self, speedup: dict[str, Any]) -> float | None:
        """Return speed-up / FLOP ratio: 1 means the speed-up equals the FLOP reduction."""
        ratio = self.costs["gflops"]["ratio"]
        return None if ratio is None else speedup["median"] / ratio

    def throughput(self, latency: list[list[float]]) -> dict[str, Any]:
        choice, seconds = self._choose_batch(), latency
        if choice.size > 1:
            self.progress(f"throughput at batch {choice.size}")
            choice, seconds = self._time_batch(choice, latency)
        described = self.describe(seconds)
        rates = [choice.size / quantiles(times, 0.5)[0] for times in seconds]
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
        """Time a batch, or half of it as long as memory runs out."""
        while choice.size > 1:
            try:
                self.warm_up(self.input(0, choice.size), self.settings.warmup)
                return choice, self.time(choice.size, _THROUGHPUT_SHARE)
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
        """Time the second of two passes of each variant; compiling for every size that is tried would take too long."""
        images = self.input(0, size)
        for variant in self.variants:
            variant.window_uncompiled(images)
        return [time_call(self.device, variant.window_uncompiled, images) for variant in self.variants]
