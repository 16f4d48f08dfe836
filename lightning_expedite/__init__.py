"""Token reduction for vision-transformer segmentation, measured so that the numbers can be trusted."""

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from . import pictures, visualization
    from .evaluation.one_image import SegmentedImage, segment
    from .evaluation.token_maps import token_groups
    from .exporting import export
    from .models import Segmenter, load, load_segmenter, with_reducer

__all__ = [
    "SegmentedImage",
    "Segmenter",
    "__version__",
    "export",
    "load",
    "load_segmenter",
    "pictures",
    "segment",
    "token_groups",
    "visualization",
    "with_reducer",
]

_PLACES = {
    "SegmentedImage": ".evaluation.one_image",
    "Segmenter": ".models",
    "export": ".exporting",
    "load": ".models",
    "load_segmenter": ".models",
    "segment": ".evaluation.one_image",
    "token_groups": ".evaluation.token_maps",
    "with_reducer": ".models",
}


def __getattr__(name: str) -> Any:
    """Import on first use: ``--help`` need not wait for torch."""
    if name in ("pictures", "visualization"):
        return importlib.import_module(f".{name}", __name__)
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
