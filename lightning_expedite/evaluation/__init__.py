"""Evaluation: sliding windows, scores and the LightningModule that wires them."""

import importlib
from typing import TYPE_CHECKING, Any

from .inference import Prediction, SlidingWindow

if TYPE_CHECKING:
    from .module import ImageResult, SegmenterModule

__all__ = ["ImageResult", "Prediction", "SegmenterModule", "SlidingWindow"]


def __getattr__(name: str) -> Any:
    """Import on first use: sliding windows alone need neither Lightning nor the packages of the metrics."""
    if name in ("ImageResult", "SegmenterModule"):
        return getattr(importlib.import_module(".module", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
