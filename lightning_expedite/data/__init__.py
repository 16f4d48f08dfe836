"""Data sets, each one file with a ``SegmentationDataModule``; a new file is found without being listed.

The data sets are imported on first use: reading and normalising images alone needs no Lightning.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_expedite.data.ade20k import ADE20K
    from lightning_expedite.data.base import ImageSource, Sample, SegmentationDataModule, View
    from lightning_expedite.data.camvid import CamVid
    from lightning_expedite.data.cityscapes import Cityscapes
    from lightning_expedite.data.demo import Demo
    from lightning_expedite.data.folder import Folder
    from lightning_expedite.data.pascal_context import PascalContext

__all__ = [
    "ADE20K",
    "CamVid",
    "Cityscapes",
    "Demo",
    "Folder",
    "ImageSource",
    "PascalContext",
    "Sample",
    "SegmentationDataModule",
    "View",
    "import_data_sets",
]


def import_data_sets() -> dict[str, Any]:
    """Import every file of this package, so that the command line finds data sets by their class names.

    Except what draws the demo scenes: it imports OpenCV, which nothing needs before the first image is read.

    Returns:
        Everything that the files define or import, by name.
    """
    names = (module.name for module in iter_modules(__path__) if not module.name.startswith("scene"))
    modules = [import_module(f"{__name__}.{name}") for name in names]
    return {name: value for module in modules for name, value in vars(module).items()}


def __getattr__(name: str) -> Any:
    """Import on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_data_sets()[name]
