"""Cityscapes: 19 classes of street scenes, evaluated as stored."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .base import SegmentationDataModule
from .palettes import read_table, table_rows
from .reading import label_table
from .samples import IGNORE_INDEX
from .sources import Entry, FileSource, Label, find_root, folders_in, images_below, readable, require_split

_IMAGE_ENDING = "_leftImg8bit.png"


class Cityscapes(SegmentationDataModule):
    """Cityscapes in its official layout, evaluated as stored unless ``short_side`` is given.

    ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` and ``gtFine/SPLIT/CITY/*_gtFine_labelTrainIds.png`` or, where those
    are absent, ``*_gtFine_labelIds.png``.

    Args:
        root: Folder with ``leftImg8bit`` and ``gtFine``.
        split: ``val`` or ``train``.
    """

    classes, palette = read_table("cityscapes")
    as_stored: ClassVar[bool] = True

    def __init__(self, root: str | Path = "data/cityscapes", split: str = "val", **kwargs: Any) -> None:
        super().__init__(root=root, split=split, **kwargs)

    def source(self) -> FileSource:
        """List the images of the split; raises ``DataError`` if there are none."""
        layout = "leftImg8bit/val/*/*_leftImg8bit.png and gtFine/val/*/*_gtFine_labelIds.png"
        images = find_root(self.root, "leftImg8bit", layout) / "leftImg8bit"
        require_split(self.split, folders_in(images), images)
        train_ids, label_ids = label_table(self.num_classes), np.full(256, IGNORE_INDEX, np.int16)
        label_ids[[int(row["label_id"]) for row in table_rows("cityscapes")]] = range(self.num_classes)
        entries = []
        for relative, path in images_below(images / self.split, _IMAGE_ENDING).items():
            stem = images.parent / "gtFine" / self.split / relative.removesuffix(_IMAGE_ENDING)
            label = Label(stem.with_name(f"{stem.name}_gtFine_labelTrainIds.png"), train_ids)
            if not label.path.is_file():
                label = Label(stem.with_name(f"{stem.name}_gtFine_labelIds.png"), label_ids)
            entries.append(Entry(readable(relative.removesuffix(".png")), path, label))
        return FileSource(images / self.split, entries)
