"""Lightning callbacks that profile the time, FLOPs and memory of a full ``test`` run.

Each adds a section to ``profile`` in ``results.json`` and to the trainer's loggers, with the share of the run that the
callback took itself (``overhead_share``). None of them makes a GPU wait inside what is timed.
"""

import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from ..data.samples import Sample
from ..errors import ConfigError
from ..evaluation.module import SegmenterModule
from ..evaluation.notices import gather
from ..evaluation.results import flatten
from ..models import with_reducer
from ..regions import region
from .costs import on_meta
from .flops import count_multiply_adds
from .memory import MEBIBYTE
from .timing import Interval, describe_latency, synchronize


class RunProfiler(Callback, ABC):
    """Base class of the profilers of a ``test`` run.

    Args:
        warmup: Batches at the start of a run (of each process) that are left out.

    Attributes:
        section: Key of the figures in ``results.json``.
        figures: The result, on every process, once the epoch has ended.
        own: Seconds that the profiler has taken itself, over all its runs.

    Raises:
        ConfigError: ``warmup`` is negative.
    """

    section: ClassVar[str]

    def __init__(self, warmup: int = 1) -> None:
        if warmup < 0:
            raise ConfigError(f"warmup is {warmup}: it must be 0 or more")
        self.warmup = warmup
        self.figures: dict[str, Any] = {}
        self.own = 0.0
        self._start = self._own_before = 0.0

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the measurements."""
        assert isinstance(pl_module, SegmenterModule)
        self.figures, self._own_before, self._start = {}, self.own, time.perf_counter()
        with self._own_time():
            self.begin(pl_module)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Measure before the batch."""
        assert isinstance(pl_module, SegmenterModule)
        with self._own_time():
            self.before_batch(pl_module, batch_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: list[Sample],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure after the batch."""
        assert isinstance(pl_module, SegmenterModule)
        with self._own_time():
            samples = [sample for sample in batch if sample["index"] >= 0]  # without a process's placeholder
            self.after_batch(pl_module, samples, batch_idx)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Combine the processes' measurements and log the figures; every process takes part, with images or not."""
        assert isinstance(pl_module, SegmenterModule)
        with self._own_time():
            measured = self.finish(pl_module)
        share = (self.own - self._own_before) / max(time.perf_counter() - self._start, 1e-9)
        parts, shares = zip(*gather([(measured, share)]), strict=True)
        self.figures = {**self.combine(list(parts)), "overhead_share": max(shares)}
        for logger in trainer.loggers:
            logger.log_metrics(flatten(self.figures, f"profile/{self.section}"))

    def begin(self, module: SegmenterModule) -> None:
        """Prepare for a run."""

    def before_batch(self, module: SegmenterModule, index: int) -> None:
        """Measure before batch number ``index``."""

    def after_batch(self, module: SegmenterModule, samples: list[Sample], index: int) -> None:
        """Measure after batch number ``index``, whose images are ``samples``."""

    @abstractmethod
    def finish(self, module: SegmenterModule) -> Any:
        """Return this process's measurements, which must be picklable."""

    @abstractmethod
    def combine(self, parts: list[Any]) -> dict[str, Any]:
        """Compute the figures, in JSON's types, from the measurements of all processes."""

    @contextmanager
    def _own_time(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.own += time.perf_counter() - start


@dataclass
class BatchTimes:
    """Seconds of one batch.

    ``data`` is the time since the batch before: loading, transfer to the device and Lightning's own work. ``total``
    includes it. The time of other profilers is in neither.
    """

    images: int
    windows: int
    data: float
    total: float
    stages: dict[str, float] = field(default_factory=dict)


class LatencyProfiler(RunProfiler):
    """Measures the time per image and its shares: data, the windows' forward passes, upsampling, scoring.

    A batch's times are divided by its number of images. On CUDA the stages are timed by events, and totals are read
    while the device is idle: scoring waits for it once per image anyway. The measurements of several processes are
    pooled; throughputs are added up.

    Args:
        warmup: Batches at the start of a run (of each process) that are left out.
    """

    section = "latency"
    stages = ("windows", "upsample + argmax", "score")

    def begin(self, module: SegmenterModule) -> None:
        """Install the module's stage contexts."""
        self._batches: list[BatchTimes] = []
        self._intervals: list[tuple[str, Interval]] = []
        self._seen = 0
        self._begun = self._ended = self._clock(module.trainer)
        self._device = module.device
        module.stage = self._stage

    def before_batch(self, module: SegmenterModule, index: int) -> None:
        """Start the clock."""
        self._intervals = []
        self._begun = self._clock(module.trainer)

    def after_batch(self, module: SegmenterModule, samples: list[Sample], index: int) -> None:
        """Stop the clock and keep the batch's times."""
        synchronize(module.device)
        now = self._clock(module.trainer)
        images = module.images[self._seen :]
        self._seen = len(module.images)
        if index >= self.warmup and images:
            stages: dict[str, float] = dict.fromkeys(self.stages, 0.0)
            for name, interval in self._intervals:
                stages[name] += interval.seconds
            windows = sum(image.windows for image in images)
            data, total = self._begun - self._ended, now - self._ended
            self._batches.append(BatchTimes(len(images), windows, data, total, stages))
        self._ended = self._clock(module.trainer)

    def finish(self, module: SegmenterModule) -> list[BatchTimes]:
        """Return the batches' times and remove the stage contexts."""
        module.stage = region
        return self._batches

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the stage contexts."""
        if isinstance(pl_module, SegmenterModule):
            pl_module.stage = region

    def combine(self, parts: list[list[BatchTimes]]) -> dict[str, Any]:
        """Pool the batches of all processes."""
        batches = [batch for part in parts for batch in part]
        images = sum(batch.images for batch in batches)
        if not images:
            return {"warmup": self.warmup, "images": 0}
        total = sum(batch.total for batch in batches)
        seconds = {"data": [batch.data for batch in batches]}
        seconds |= {name: [batch.stages[name] for batch in batches] for name in self.stages}
        seconds["other"] = [max(batch.total - batch.data - sum(batch.stages.values()), 0.0) for batch in batches]
        shares = {
            name: {**describe_latency(_per_image(times, batches)), "share": sum(times) / total}
            for name, times in seconds.items()
        }
        measured = [part for part in parts if part]
        return {
            "warmup": self.warmup,
            "images": images,
            "windows": sum(batch.windows for batch in batches),
            "per_image": describe_latency(_per_image([batch.total for batch in batches], batches)),
            "parts": shares,
            "model_share": shares["windows"]["share"],
            "images_per_second": sum(
                sum(batch.images for batch in part) / sum(batch.total for batch in part) for part in measured
            ),
            "windows_per_second": sum(
                sum(batch.windows for batch in part) / max(sum(batch.stages["windows"] for batch in part), 1e-9)
                for part in measured
            ),
        }

    def _clock(self, trainer: Trainer) -> float:
        """Return the time in seconds without that which other profilers among the callbacks have taken."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        others = (each.own for each in callbacks if isinstance(each, RunProfiler) and each is not self)
        return time.perf_counter() - sum(others)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        with region(name), Interval(self._device) as interval:
            yield
        self._intervals.append((name, interval))


Size = tuple[int, int]  # height and width of a window


@dataclass
class WindowCounts:
    """Windows of a process by size, and multiply-adds per window: reduced, baseline."""

    images: int = 0
    windows: Counter[Size] = field(default_factory=Counter)
    multiply_adds: dict[Size, tuple[int, int]] = field(default_factory=dict)
    estimated: bool = False


class FlopsProfiler(RunProfiler):
    """Counts multiply-adds in the convention of the published tables (FLOPs there); see `count_multiply_adds`.

    Each size of window is counted once, on the ``meta`` device, which takes a few tenths of a second. Where the number
    depends on the image (ACT), one more forward pass of the first window of each size after the warm-up is counted,
    and is used for all windows of that size.

    Args:
        warmup: Batches at the start of a run before a window is counted whose number depends on it; the images of
            all batches are part of the figures.
    """

    section = "flops"

    def begin(self, module: SegmenterModule) -> None:
        """Reset the counts."""
        assert module.model is not None
        self._counts = WindowCounts()
        self._hollow = on_meta(module.model)

    def after_batch(self, module: SegmenterModule, samples: list[Sample], index: int) -> None:
        """Count the windows by size, and the multiply-adds of new sizes."""
        assert module.model is not None
        assert module.sliding_window is not None
        counts, hollow = self._counts, self._hollow
        by_content = hollow.reducer is not None and hollow.reducer.shapes_depend_on_content
        counts.images += len(samples)
        for image in (view["image"] for sample in samples for view in sample["views"]):
            plan = module.sliding_window.plan((image.shape[1], image.shape[2]))
            counts.windows[plan.window] += len(plan.origins)
            if plan.window in counts.multiply_adds or (by_content and index < self.warmup):
                continue
            empty = torch.empty(1, 3, *plan.window, device="meta")
            if by_content:
                counts.estimated = True
                reduced = count_multiply_adds(module.model, module.sliding_window.crops(image)[0][None])
            else:
                reduced = count_multiply_adds(hollow, empty)
            counts.multiply_adds[plan.window] = reduced, count_multiply_adds(with_reducer(hollow, None), empty)

    def finish(self, module: SegmenterModule) -> WindowCounts:
        """Return the windows by size and their multiply-adds."""
        return self._counts

    def combine(self, parts: list[WindowCounts]) -> dict[str, Any]:
        """Add up the windows of all processes, each size at the multiply-adds of the first process that counted it."""
        each = {size: counted for part in reversed(parts) for size, counted in part.multiply_adds.items()}
        windows = sum((part.windows for part in parts), Counter[Size]())
        images = sum(part.images for part in parts)
        if not windows or windows.keys() - each.keys():  # of ACT, a size that only occurred in the warm-up
            return {"warmup": self.warmup, "images": images}
        reduced, baseline = (sum(each[size][i] * number for size, number in windows.items()) for i in (0, 1))
        return {
            "warmup": self.warmup,
            "images": images,
            "gflops_total": reduced / 1e9,
            "gflops_per_image": reduced / images / 1e9,
            "gflops_per_image_unreduced": baseline / images / 1e9,
            "reduction_percent": 100 * (1 - reduced / baseline),
            "gflops_per_window": {f"{size[0]}x{size[1]}": each[size][0] / 1e9 for size in sorted(windows)},
            "estimated": any(part.estimated for part in parts),
        }


class MemoryProfiler(RunProfiler):
    """Measures the peak memory of a process, in MiB.

    On CUDA: what PyTorch has allocated and reserved on the device after the warm-up, weights included
    (``peak_allocated_mib``, ``peak_reserved_mib``), and what was allocated at its end (``start_allocated_mib``). On the
    host: the largest resident set of the process since it started (``host_peak_mib``). Of several processes the largest
    value is reported.

    Args:
        warmup: Batches at the start of a run (of each process) that are left out on CUDA.
    """

    section = "memory"

    def begin(self, module: SegmenterModule) -> None:
        """Reset the figures."""
        self._measured: dict[str, float] = {}

    def before_batch(self, module: SegmenterModule, index: int) -> None:
        """Reset the device's peak at the end of the warm-up."""
        if index == self.warmup and module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(module.device)
            self._measured["start_allocated_mib"] = torch.cuda.memory_allocated(module.device) / MEBIBYTE

    def finish(self, module: SegmenterModule) -> dict[str, float]:
        """Read the peaks; a process without batches after the warm-up has none of the device."""
        if self._measured:
            self._measured["peak_allocated_mib"] = torch.cuda.max_memory_allocated(module.device) / MEBIBYTE
            self._measured["peak_reserved_mib"] = torch.cuda.max_memory_reserved(module.device) / MEBIBYTE
        if sys.platform != "win32":
            import resource  # not on Windows

            unit = 1 if sys.platform == "darwin" else 1024
            self._measured["host_peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEBIBYTE
        return self._measured

    def combine(self, parts: list[dict[str, float]]) -> dict[str, Any]:
        """Return the maximum of each figure over the processes."""
        names = dict.fromkeys(name for part in parts for name in part)
        return {"warmup": self.warmup, **{name: max(part[name] for part in parts if name in part) for name in names}}


def _per_image(seconds: list[float], batches: list[BatchTimes]) -> list[float]:
    """Divide the times of batches by their number of images; each image has the mean time of its batch."""
    return [each / batch.images for each, batch in zip(seconds, batches, strict=True) for _ in range(batch.images)]
