"""Token reduction for vision-transformer segmentation, measured so that the numbers can be trusted."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import pictures
    from .exporting import export
    from .one_image import SegmentedImage, segment
    from .segmenter import Segmenter, load_segmenter, with_reducer

__version__ = "0.1.0"
__all__ = [
    "SegmentedImage",
    "Segmenter",
    "__version__",
    "export",
    "load_segmenter",
    "pictures",
    "segment",
    "with_reducer",
]

_PLACES = {
    "SegmentedImage": ".one_image",
    "Segmenter": ".segmenter",
    "export": ".exporting",
    "load_segmenter": ".segmenter",
    "segment": ".one_image",
    "with_reducer": ".segmenter",
}


def __getattr__(name: str) -> Any:
    """Import on first use: ``--help`` need not wait for torch."""
    if name == "pictures":
        return importlib.import_module(".pictures", __name__)
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
