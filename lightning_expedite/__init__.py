"""Token reduction for vision-transformer segmentation, measured so that the numbers can be trusted."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .segmenter import Segmenter, load_segmenter

__version__ = "0.1.0"
__all__ = ["Segmenter", "__version__", "load_segmenter"]


def __getattr__(name: str) -> Any:
    """Import on first use: ``--help`` need not wait for torch."""
    if name in ("Segmenter", "load_segmenter"):
        return getattr(importlib.import_module(".segmenter", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
