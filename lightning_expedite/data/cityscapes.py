"""Cityscapes: 19 classes of street scenes, evaluated as stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lightning_expedite.data.base import SegmentationDataModule
from lightning_expedite.data.cityscapes_classes import CITYSCAPES_CLASSES
from lightning_expedite.data.reading import label_table
from lightning_expedite.data.samples import IGNORE_INDEX
from lightning_expedite.data.sources import (
    Entry,
    FileSource,
    Label,
    find_root,
    folders_in,
    images_below,
    require_split,
    without_suffix,
)

_IMAGE_ENDING = "_leftImg8bit.png"


class Cityscapes(SegmentationDataModule):
    """Cityscapes in its official layout.

    ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` beside ``gtFine/SPLIT/CITY/*_gtFine_labelTrainIds.png`` or,
    where those are absent, ``*_gtFine_labelIds.png``. Images are evaluated as stored unless ``short_side`` is
    given.

    Args:
        root: Folder with ``leftImg8bit`` and ``gtFine``.
        split: ``val`` or ``train``.
    """

    classes = tuple(name for name, _, _ in CITYSCAPES_CLASSES)
    palette = tuple(colour for _, colour, _ in CITYSCAPES_CLASSES)
    as_stored: ClassVar[bool] = True

    def __init__(self, root: str | Path = "data/cityscapes", split: str = "val", **kwargs: Any) -> None:
        super().__init__(root=root, split=split, **kwargs)

    def source(self) -> FileSource:
        """List the images of the split; raises ``DataError`` where there are none."""
        layout = "leftImg8bit/val/*/*_leftImg8bit.png and gtFine/val/*/*_gtFine_labelIds.png"
        root = find_root(self.root, (), "leftImg8bit", layout)
        require_split(self.split, folders_in(root / "leftImg8bit"), root / "leftImg8bit")
        return FileSource(root / "leftImg8bit" / self.split, self._entries(root))

    def _entries(self, root: Path) -> Iterator[Entry]:
        train_ids, ids = label_table(self.num_classes), _id_table()
        for relative, path in images_below(root / "leftImg8bit" / self.split, _IMAGE_ENDING).items():
            stem = root / "gtFine" / self.split / relative.removesuffix(_IMAGE_ENDING)
            by_train_id = stem.with_name(f"{stem.name}_gtFine_labelTrainIds.png")
            by_id = stem.with_name(f"{stem.name}_gtFine_labelIds.png")
            label = Label(by_train_id, train_ids) if by_train_id.is_file() else Label(by_id, ids)
            yield Entry(without_suffix(relative), path, label)


def _id_table() -> NDArray[np.int16]:
    """Return the train id of each id; the other ids are classes that the benchmark ignores."""
    table = np.full(256, IGNORE_INDEX, np.int16)
    for train_id, (_, _, label_id) in enumerate(CITYSCAPES_CLASSES):
        table[label_id] = train_id
    return table
