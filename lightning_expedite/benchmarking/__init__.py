"""What a model costs: in one forward pass, and in a whole ``test`` run (the callbacks)."""

import importlib
from typing import TYPE_CHECKING, Any

from .flops import count_multiply_adds

if TYPE_CHECKING:
    from .callbacks import LatencyProfiler
    from .run_costs import FlopsProfiler, MemoryProfiler

__all__ = ["FlopsProfiler", "LatencyProfiler", "MemoryProfiler", "count_multiply_adds"]

_LAZY = {"LatencyProfiler": ".callbacks", "FlopsProfiler": ".run_costs", "MemoryProfiler": ".run_costs"}


def __getattr__(name: str) -> Any:
    """Import on first use: counting alone does not need Lightning."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
