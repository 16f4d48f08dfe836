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


def import_data_sets() -> None:
    """Import every file of this package, so that the command line finds data sets by their class names.

    Except what draws the demo scenes: it imports OpenCV, which nothing needs before the first image is read.
    """
    for module in iter_modules(__path__):
        if not module.name.startswith("scene"):
            import_module(f"{__name__}.{module.name}")


def __getattr__(name: str) -> Any:
    """Import on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_data_sets()
    base = import_module(f"{__name__}.base")
    subclasses = base.SegmentationDataModule.__subclasses__()
    data_sets = {cls.__name__: cls for cls in subclasses if cls.__module__.startswith(f"{__name__}.")}
    return data_sets[name] if name in data_sets else getattr(base, name)
