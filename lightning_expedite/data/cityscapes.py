"""Cityscapes: 19 classes of street scenes, evaluated as stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lightning_expedite.data.base import SegmentationDataModule
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

# Name, colour and the id that *_labelIds.png files store; the position in this list is the train id.
_CLASSES = (
    ("road", (128, 64, 128), 7),
    ("sidewalk", (244, 35, 232), 8),
    ("building", (70, 70, 70), 11),
    ("wall", (102, 102, 156), 12),
    ("fence", (190, 153, 153), 13),
    ("pole", (153, 153, 153), 17),
    ("traffic light", (250, 170, 30), 19),
    ("traffic sign", (220, 220, 0), 20),
    ("vegetation", (107, 142, 35), 21),
    ("terrain", (152, 251, 152), 22),
    ("sky", (70, 130, 180), 23),
    ("person", (220, 20, 60), 24),
    ("rider", (255, 0, 0), 25),
    ("car", (0, 0, 142), 26),
    ("truck", (0, 0, 70), 27),
    ("bus", (0, 60, 100), 28),
    ("train", (0, 80, 100), 31),
    ("motorcycle", (0, 0, 230), 32),
    ("bicycle", (119, 11, 32), 33),
)


class Cityscapes(SegmentationDataModule):
    """Cityscapes in its official layout.

    ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` beside ``gtFine/SPLIT/CITY/*_gtFine_labelTrainIds.png`` or,
    where those are absent, ``*_gtFine_labelIds.png``. Images are evaluated as stored unless ``short_side`` is
    given.

    Args:
        root: Folder with ``leftImg8bit`` and ``gtFine``.
        split: ``val`` or ``train``.
    """

    classes = tuple(name for name, _, _ in _CLASSES)
    palette = tuple(colour for _, colour, _ in _CLASSES)
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
    for train_id, (_, _, label_id) in enumerate(_CLASSES):
        table[label_id] = train_id
    return table
