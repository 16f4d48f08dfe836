"""Lightning callbacks that measure a whole ``test`` run: what they share, and latency.

They add their figures to ``results.json`` (``profile``) and to the trainer's loggers. None of them makes a GPU wait
inside what is timed, and each tells its own share of the run's time.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import distributed

from ..data.samples import Sample
from ..errors import ConfigError
from ..evaluation.module import SegmenterModule
from ..regions import region
from .timing import describe_latency


class RunProfiler(Callback, ABC):
    """What the profilers of a ``test`` run share.

    ``figures`` holds the result after the epoch, on every process; ``own`` the seconds that the profiler took itself,
    in all its runs so far.

    Args:
        warmup: Batches at the start of a run (of each process) that are left out.

    Raises:
        ConfigError: ``warmup`` is negative.
    """

    section: ClassVar[str]
    """Key of the figures in ``results.json``."""

    def __init__(self, warmup: int = 1) -> None:
        if warmup < 0:
            raise ConfigError(f"warmup is {warmup}: it must be 0 or more")
        self.warmup = warmup
        self.figures: dict[str, Any] = {}
        self.own = 0.0
        self._start = self._own_before = 0.0

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start anew."""
        assert isinstance(pl_module, SegmenterModule)
        self.figures, self._own_before, self._start = {}, self.own, time.perf_counter()
        with self._counted():
            self.begin(pl_module)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Measure, once the warm-up is over."""
        assert isinstance(pl_module, SegmenterModule)
        with self._counted():
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
        """Measure, once the warm-up is over."""
        assert isinstance(pl_module, SegmenterModule)
        with self._counted():
            samples = [sample for sample in batch if sample["index"] >= 0]  # without a process's placeholder
            self.after_batch(pl_module, samples, batch_idx)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the processes' measurements together and log the figures; every process takes part, images or not."""
        assert isinstance(pl_module, SegmenterModule)
        with self._counted():
            part = self.finish(pl_module)
        share = (self.own - self._own_before) / max(time.perf_counter() - self._start, 1e-9)
        parts, shares = zip(*gather((part, share)), strict=True)
        self.figures = {**self.combine(list(parts)), "overhead_share": max(shares)}
        for logger in trainer.loggers:
            logger.log_metrics(flatten(self.figures, f"profile/{self.section}"))

    def begin(self, module: SegmenterModule) -> None:
        """Prepare for a run."""

    def before_batch(self, module: SegmenterModule, index: int) -> None:
        """Look at the clock or whatever is measured, before batch number ``index``."""

    def after_batch(self, module: SegmenterModule, samples: list[Sample], index: int) -> None:
        """Look again, after the batch; ``samples`` are its images."""

    @abstractmethod
    def finish(self, module: SegmenterModule) -> Any:
        """Give this process's measurements, in plain Python types."""

    @abstractmethod
    def combine(self, parts: list[Any]) -> dict[str, Any]:
        """Make the figures from the measurements of all processes, in JSON's types."""

    @contextmanager
    def _counted(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.own += time.perf_counter() - start


@dataclass
class BatchTimes:
    """Seconds of one batch."""

    images: int
    windows: int
    data: float  # since the batch before: loading, transfer to the device, Lightning's own work, no other profiler's
    total: float  # with ``data``, without other profilers
    stages: dict[str, float] = field(default_factory=dict)


class LatencyProfiler(RunProfiler):
    """Measures how long an image takes, and on what: data, the windows' passes, upsampling, scoring.

    A batch's times are divided by its images. On CUDA the parts are times between events of the device, and totals
    are taken while it is idle: scoring waits for it once an image anyway. The measurements of several processes are
    pooled; throughputs are added up.

    Args:
        warmup: Batches at the start of a run (of each process) that are left out.
    """

    section = "latency"
    stages = ("windows", "upsample + argmax", "score")

    def begin(self, module: SegmenterModule) -> None:
        """Watch the module's stages."""
        self._batches: list[BatchTimes] = []
        self._current: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._seen = 0
        self._others_begun = self._others_ended = own_seconds(module.trainer, but=self)
        self._begun = self._ended = time.perf_counter()
        self._cuda = module.device.type == "cuda"
        module.stage = self._stage

    def before_batch(self, module: SegmenterModule, index: int) -> None:
        """Start the clock."""
        self._current = {}
        self._events = []
        self._others_begun = own_seconds(module.trainer, but=self)
        self._begun = time.perf_counter()

    def after_batch(self, module: SegmenterModule, samples: list[Sample], index: int) -> None:
        """Stop the clock and keep the batch's times."""
        if self._cuda:
            torch.cuda.synchronize(module.device)
        now = time.perf_counter()
        for name, first, last in self._events:
            self._add(name, first.elapsed_time(last) / 1000)
        images = module.images[self._seen :]
        self._seen = len(module.images)
        if index >= self.warmup and images:
            windows = sum(image.windows for image in images)
            # Other profilers, by their place among the callbacks, come before or after either reading of the clock.
            data = self._begun - self._ended - (self._others_begun - self._others_ended)
            total = now - self._ended - (own_seconds(module.trainer, but=self) - self._others_ended)
            self._batches.append(BatchTimes(len(images), windows, data, total, self._current))
        self._others_ended = own_seconds(module.trainer, but=self)
        self._ended = time.perf_counter()

    def finish(self, module: SegmenterModule) -> list[BatchTimes]:
        """Give the batches' times and leave the module as it was."""
        module.stage = region
        return self._batches

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the module as it was."""
        if isinstance(pl_module, SegmenterModule):
            pl_module.stage = region

    def combine(self, parts: list[list[BatchTimes]]) -> dict[str, Any]:
        """Pool the batches of all processes."""
        batches = [batch for part in parts for batch in part]
        images = sum(batch.images for batch in batches)
        if not images:
            return {"warmup": self.warmup, "images": 0}
        total = sum(batch.total for batch in batches)
        parts_of = {"data": [batch.data for batch in batches]}
        for name in self.stages:
            parts_of[name] = [batch.stages.get(name, 0.0) for batch in batches]
        parts_of["other"] = [
            max(batch.total - sum(times), 0.0) for batch, *times in zip(batches, *parts_of.values(), strict=True)
        ]
        per_image = {
            name: {**describe_latency(divided(times, batches)), "share": sum(times) / total}
            for name, times in parts_of.items()
        }
        return {
            "warmup": self.warmup,
            "images": images,
            "windows": sum(batch.windows for batch in batches),
            "per_image": describe_latency(divided([batch.total for batch in batches], batches)),
            "parts": per_image,
            "model_share": per_image["windows"]["share"],
            "images_per_second": sum(
                sum(batch.images for batch in part) / sum(batch.total for batch in part) for part in parts if part
            ),
            "windows_per_second": sum(
                sum(batch.windows for batch in part) / max(sum(batch.stages["windows"] for batch in part), 1e-9)
                for part in parts
                if part
            ),
        }

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        with region(name):
            if not self._cuda:
                start = time.perf_counter()
                yield
                self._add(name, time.perf_counter() - start)
                return
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            yield
            last.record()
            self._events.append((name, first, last))

    def _add(self, name: str, seconds: float) -> None:
        self._current[name] = self._current.get(name, 0.0) + seconds


def own_seconds(trainer: Trainer, but: RunProfiler) -> float:
    """Give the seconds that the other profilers among a trainer's callbacks have taken so far."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return sum(one.own for one in callbacks if isinstance(one, RunProfiler) and one is not but)


def profile_of(trainer: Trainer) -> dict[str, Any]:
    """Give the figures of all profilers among a trainer's callbacks, by section."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return {callback.section: callback.figures for callback in callbacks if isinstance(callback, RunProfiler)}


def divided(seconds: list[float], batches: list[BatchTimes]) -> list[float]:
    """Divide the times of batches by their images; an image has the time of its batch's average image."""
    return [time / batch.images for time, batch in zip(seconds, batches, strict=True) for _ in range(batch.images)]


def gather(part: Any) -> list[Any]:
    """Collect an object of every process, on every process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [part]
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, part)
    return parts


def flatten(figures: Mapping[str, Any], name: str) -> dict[str, float]:
    """Turn nested figures into the flat numbers that loggers take."""
    flat: dict[str, float] = {}
    for key, value in figures.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}/{key}"))
        elif value is not None:
            flat[f"{name}/{key}"] = float(value)
    return flat
