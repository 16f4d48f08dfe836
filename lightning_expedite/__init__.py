"""Token reduction for ViT segmentation: load a model, reduce its tokens, measure what that costs and saves.

``load`` returns a model and ``with_reducer`` the same with a reducer (`TokenClustering`, `EViT`, `ToMe`, `ACT`);
``segment`` labels an image of any size; ``visualization`` draws results, ``token_groups`` which patches share a token;
``export`` writes a model as a file. The command line is ``lightning-expedite --help``.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from . import pictures, visualization
    from .evaluation.one_image import SegmentedImage, segment
    from .evaluation.token_maps import token_groups
    from .exporting import export
    from .models import Segmenter, load, load_segmenter, with_reducer
    from .reducers import ACT, EViT, TokenClustering, ToMe

__all__ = [
    "ACT",
    "EViT",
    "SegmentedImage",
    "Segmenter",
    "ToMe",
    "TokenClustering",
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

_MODULES = {
    **dict.fromkeys(("ACT", "EViT", "ToMe", "TokenClustering"), ".reducers"),
    **dict.fromkeys(("Segmenter", "load", "load_segmenter", "with_reducer"), ".models"),
    **dict.fromkeys(("SegmentedImage", "segment"), ".evaluation.one_image"),
    "token_groups": ".evaluation.token_maps",
    "export": ".exporting",
}
_SUBMODULES = ("pictures", "visualization")  # pictures is the deprecated name


def __getattr__(name: str) -> Any:
    """Import on first use: ``--help`` need not wait for torch."""
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted(name for name in {*globals(), *__all__} if name == "__version__" or not name.startswith("_"))
