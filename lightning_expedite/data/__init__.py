"""Data sets, each one file with a ``SegmentationDataModule``; a new file is found without being listed."""

from importlib import import_module
from pkgutil import iter_modules

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
]

# The command line finds a data set by its class name once its module is imported. What draws the demo data is
# left out: it imports OpenCV, which nothing needs before the first image is read.
for _module in iter_modules(__path__):
    if not _module.name.startswith("scene"):
        import_module(f"{__name__}.{_module.name}")
