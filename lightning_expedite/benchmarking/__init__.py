"""What a model costs: in one forward pass (`compare`), and over a full ``test`` run (the callbacks)."""

import importlib
from typing import TYPE_CHECKING, Any

from .benchmark import BenchmarkSettings, compare
from .costs import on_meta
from .crops import CropSource
from .flops import count_multiply_adds
from .variants import untrained_segmenter

if TYPE_CHECKING:
    from .callbacks import FlopsProfiler, LatencyProfiler, MemoryProfiler

__all__ = [
    "BenchmarkSettings",
    "CropSource",
    "FlopsProfiler",
    "LatencyProfiler",
    "MemoryProfiler",
    "compare",
    "count_multiply_adds",
    "on_meta",
    "untrained_segmenter",
]


def __getattr__(name: str) -> Any:
    """Import the callbacks on first use: everything else works without Lightning."""
    if name in ("FlopsProfiler", "LatencyProfiler", "MemoryProfiler"):
        return getattr(importlib.import_module(".callbacks", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
