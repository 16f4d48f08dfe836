"""Cityscapes: 19 classes of street scenes, evaluated as stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lightning_expedite.data.base import SegmentationDataModule
from lightning_expedite.data.palettes import read_table, table_rows
from lightning_expedite.data.reading import label_table
from lightning_expedite.data.samples import IGNORE_INDEX
from lightning_expedite.data.sources import (
    Entry,
    FileSource,
    Label,
    find_root,
    folders_in,
    images_below,
    readable_name,
    require_split,
)

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
        root = find_root(self.root, (), "leftImg8bit", layout)
        require_split(self.split, folders_in(root / "leftImg8bit"), root / "leftImg8bit")
        return FileSource(root / "leftImg8bit" / self.split, self._entries(root))

    def _entries(self, root: Path) -> Iterator[Entry]:
        train_ids, label_ids = label_table(self.num_classes), _label_id_table()
        for relative, path in images_below(root / "leftImg8bit" / self.split, _IMAGE_ENDING).items():
            stem = root / "gtFine" / self.split / relative.removesuffix(_IMAGE_ENDING)
            by_train_id = stem.with_name(f"{stem.name}_gtFine_labelTrainIds.png")
            by_label_id = stem.with_name(f"{stem.name}_gtFine_labelIds.png")
            label = Label(by_train_id, train_ids) if by_train_id.is_file() else Label(by_label_id, label_ids)
            yield Entry(readable_name(relative), path, label)


def _label_id_table() -> NDArray[np.int16]:
    """Return the train id of each label id; the benchmark ignores all other label ids."""
    table = np.full(256, IGNORE_INDEX, np.int16)
    for train_id, row in enumerate(table_rows("cityscapes")):
        table[int(row["label_id"])] = train_id
    return table
