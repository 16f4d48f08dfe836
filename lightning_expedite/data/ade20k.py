"""ADE20K scene parsing: 150 classes of indoor and outdoor scenes."""

from pathlib import Path
from typing import Any

from .base import SegmentationDataModule
from .palettes import read_table
from .reading import label_table
from .sources import FileSource, find_root, folders_in, pair_folders, require_split


class ADE20K(SegmentationDataModule):
    """ADE20K as distributed for the scene parsing challenge.

    ``images/SPLIT/*.jpg`` and ``annotations/SPLIT/*.png``; labels store the class index + 1, and 0 is ignored.

    Args:
        root: Folder with ``images`` and ``annotations``, or its parent with ``ADEChallengeData2016``.
        split: ``validation`` or ``training``.
    """

    classes, palette = read_table("ade20k")

    def __init__(self, root: str | Path = "data/ade20k", split: str = "validation", **kwargs: Any) -> None:
        super().__init__(root=root, split=split, **kwargs)

    def source(self) -> FileSource:
        """List the images of the split; raises ``DataError`` if there are none."""
        layout = "images/validation/*.jpg and annotations/validation/*.png"
        root = find_root(self.root, "images", layout, below=["ADEChallengeData2016"])
        require_split(self.split, folders_in(root / "images"), root / "images")
        table = label_table(self.num_classes, reduce_zero_label=True)
        return pair_folders(root / "images" / self.split, root / "annotations" / self.split, table)
