"""PASCAL-Context: 59 classes and background on the images of PASCAL VOC 2010."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from lightning_expedite.data.ade20k_classes import ADE20K_CLASSES
from lightning_expedite.data.base import SegmentationDataModule
from lightning_expedite.data.reading import label_table
from lightning_expedite.data.sources import Entry, FileSource, Label, find_root, require_split
from lightning_expedite.errors import DataError

IMAGES = "JPEGImages"
LABELS = "SegmentationClassContext"
LISTS = "ImageSets/SegmentationContext"

# In the order of the annotations' category ids, which is what the label files count. Lists that begin with
# aeroplane, bicycle, bird name the same classes in another order and do not fit these files.
_CLASSES = (
    "background aeroplane bag bed bedclothes bench bicycle bird boat book bottle building bus cabinet car"
    " cat ceiling chair cloth computer cow cup curtain dog door fence floor flower food grass ground horse"
    " keyboard light motorbike mountain mouse person plate platform pottedplant road rock sheep shelves"
    " sidewalk sign sky snow sofa table track train tree truck tvmonitor wall water window wood"
)


class PascalContext(SegmentationDataModule):
    """PASCAL-Context in the layout of VOC 2010.

    ``JPEGImages/NAME.jpg``, ``SegmentationClassContext/NAME.png`` and the lists of names
    ``ImageSets/SegmentationContext/SPLIT.txt``; ``python -m lightning_expedite prepare pascal_context`` makes the
    latter two from the distributed annotations.

    Args:
        root: Folder with ``JPEGImages``, or the one with ``VOCdevkit/VOC2010``.
        split: ``val`` or ``train``.
    """

    classes = tuple(_CLASSES.split())
    # The colours this data set is usually shown in are ADE20K's first ones.
    palette = tuple(colour for _, colour in ADE20K_CLASSES[:60])
    long_side_factor: ClassVar[int] = 8

    def __init__(self, root: str | Path = "data/pascal_context", split: str = "val", **kwargs: Any) -> None:
        super().__init__(root=root, split=split, **kwargs)

    def source(self) -> FileSource:
        """List the images of the split; raises ``DataError`` where there are none."""
        root = voc_root(self.root)
        lists = root / LISTS
        if not lists.is_dir():
            command = "python -m lightning_expedite prepare pascal_context"
            raise DataError(f"{lists}: no such folder; make it with '{command}'")
        require_split(self.split, (path.stem for path in lists.glob("*.txt")), lists)
        return FileSource(lists / f"{self.split}.txt", self._entries(root, lists / f"{self.split}.txt"))

    def _entries(self, root: Path, names: Path) -> Iterator[Entry]:
        table = label_table(self.num_classes)
        for name in _read_names(names):
            label = Label(root / LABELS / f"{name}.png", table)
            yield Entry(name, root / IMAGES / f"{name}.jpg", label)


def voc_root(root: Path) -> Path:
    """Return the folder with VOC 2010's images: ``root`` or the one below it that the archive unpacks to.

    Raises:
        DataError: If there are no images in either.
    """
    return find_root(root, ("VOCdevkit/VOC2010", "VOC2010"), IMAGES, f"{IMAGES}, {LABELS} and {LISTS}")


def _read_names(path: Path) -> Iterator[str]:
    """Yield the names in a list, one per line; raises ``DataError`` for one that leaves the folder."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of names ({error})") from error
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name:
            continue
        if "\\" in name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise DataError(f"{path}, line {number}: {name!r} is not a name within {IMAGES}; correct the list")
        yield name
