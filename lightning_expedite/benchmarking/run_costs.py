"""Lightning callbacks that count the multiply-adds of a whole ``test`` run and measure its memory."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

from ..data.samples import Sample
from ..evaluation.module import SegmenterModule
from .callbacks import RunProfiler
from .costs import on_meta
from .flops import count_multiply_adds
from .memory import MEBIBYTE, reset_resident_peak, resident_mib
from .sides import without_reducer

Size = tuple[int, int]  # height and width of a window


class FlopsProfiler(RunProfiler):
    """Counts multiply-adds in the convention of the published tables (FLOPs there); see `count_multiply_adds`.

    Nothing is computed for it: each size of window is counted once, on the ``meta`` device, in a few tenths of
    a second. Where the number depends on the image (ACT), it is counted in one more pass of the first window of each
    size after the warm-up, and stands for all windows of that size.

    Args:
        warmup: Batches at the start of a run before a window is counted whose number depends on it; the images of
            all batches are part of the figures.
    """

    section = "flops"

    def begin(self, module: SegmenterModule) -> None:
        """Start without windows."""
        assert module.model is not None
        self._windows: Counter[Size] = Counter()
        self._counts: dict[Size, tuple[int, int]] = {}  # per window: with the reducer, without
        self._images = 0
        self._estimated = False
        self._hollow = on_meta(module.model)

    def after_batch(self, module: SegmenterModule, samples: list[Sample], index: int) -> None:
        """Count the windows by size, and the multiply-adds of sizes that are new."""
        assert module.model is not None
        assert module.sliding_window is not None
        self._images += len(samples)
        for image in (view["image"] for sample in samples for view in sample["views"]):
            plan = module.sliding_window.plan((image.shape[1], image.shape[2]))
            self._windows[plan.window] += len(plan.origins)
            if plan.window in self._counts:
                continue
            hollow, empty = self._hollow, torch.empty(1, 3, *plan.window, device="meta")
            if hollow.reducer is None or not hollow.reducer.shapes_depend_on_content:
                reduced = count_multiply_adds(hollow, empty)
            elif index >= self.warmup:
                self._estimated = True
                reduced = count_multiply_adds(module.model, module.sliding_window.crops(image)[0][None])
            else:
                continue
            self._counts[plan.window] = (reduced, count_multiply_adds(without_reducer(hollow), empty))

    def finish(self, module: SegmenterModule) -> "WindowCounts":
        """Give the windows by size and what each costs."""
        return WindowCounts(self._images, self._windows, self._counts, self._estimated)

    def combine(self, parts: list["WindowCounts"]) -> dict[str, Any]:
        """Add up the windows of all processes; what a size costs is told by the first that counted it."""
        counts = {size: count for part in reversed(parts) for size, count in part.counts.items()}
        windows = sum((part.windows for part in parts), Counter[Size]())
        images = sum(part.images for part in parts)
        if not windows or windows.keys() - counts.keys():  # of ACT, a size that came in the warm-up alone
            return {"warmup": self.warmup, "images": images}
        reduced, unreduced = (sum(counts[size][side] * number for size, number in windows.items()) for side in (0, 1))
        return {
            "warmup": self.warmup,
            "images": images,
            "gflops_total": reduced / 1e9,
            "gflops_per_image": reduced / images / 1e9,
            "gflops_per_image_unreduced": unreduced / images / 1e9,
            "reduction_percent": 100 * (1 - reduced / unreduced),
            "gflops_per_window": {f"{size[0]}x{size[1]}": counts[size][0] / 1e9 for size in sorted(windows)},
            "estimated": any(part.estimated for part in parts),
        }


@dataclass
class WindowCounts:
    """What a process's windows cost."""

    images: int
    windows: Counter[Size]
    counts: dict[Size, tuple[int, int]]
    estimated: bool


class MemoryProfiler(RunProfiler):
    """Measures the most memory that a process takes after the warm-up.

    On CUDA that is what PyTorch has allocated and reserved on the device, weights included. On the CPU (Linux) it is
    the process's resident memory, with what it was when the measurement started beside it; where the system lets no
    peak be reset, that of the whole life of the process. Of several processes the largest figure is given.

    Args:
        warmup: Batches at the start of a run (of each process) that are left out.
    """

    section = "memory"

    def begin(self, module: SegmenterModule) -> None:
        """Start without figures."""
        self._figures: dict[str, float] = {}

    def before_batch(self, module: SegmenterModule, index: int) -> None:
        """Reset the peaks once the warm-up is over."""
        if index != self.warmup:
            return
        if module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(module.device)
            self._figures["start_allocated_mib"] = torch.cuda.memory_allocated(module.device) / MEBIBYTE
        reset = reset_resident_peak()
        self._figures["host_peak_since_warmup"] = float(reset)
        start = resident_mib("VmRSS")
        if start is not None:
            self._figures["host_start_mib"] = start

    def finish(self, module: SegmenterModule) -> dict[str, float]:
        """Read the peaks; a process that saw no batch after the warm-up has none."""
        if not self._figures:
            return {}
        if module.device.type == "cuda":
            self._figures["peak_allocated_mib"] = torch.cuda.max_memory_allocated(module.device) / MEBIBYTE
            self._figures["peak_reserved_mib"] = torch.cuda.max_memory_reserved(module.device) / MEBIBYTE
        peak = resident_mib("VmHWM")
        if peak is not None:
            self._figures["host_peak_mib"] = peak
        return self._figures

    def combine(self, parts: list[dict[str, float]]) -> dict[str, Any]:
        """Take the largest of each figure."""
        names = dict.fromkeys(name for part in parts for name in part)
        figures: dict[str, Any] = {name: max(part[name] for part in parts if name in part) for name in names}
        if figures:
            figures["host_peak_since_warmup"] = all(part["host_peak_since_warmup"] for part in parts if part)
        return {"warmup": self.warmup, **figures}
