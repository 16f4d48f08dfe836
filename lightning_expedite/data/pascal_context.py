"""PASCAL-Context: 59 classes and background on the images of PASCAL VOC 2010."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from ..errors import DataError
from ..files import read_text
from .base import SegmentationDataModule
from .palettes import read_table
from .reading import label_table
from .sources import Entry, FileSource, Label, find_root, require_split

IMAGES = "JPEGImages"
LABELS = "SegmentationClassContext"
LISTS = "ImageSets/SegmentationContext"
_LARGEST_LIST = 64 << 20
_LONGEST_SHOWN = 80


class PascalContext(SegmentationDataModule):
    """PASCAL-Context in the layout of VOC 2010.

    ``JPEGImages/NAME.jpg``, ``SegmentationClassContext/NAME.png`` and the lists of names
    ``ImageSets/SegmentationContext/SPLIT.txt``; ``python -m lightning_expedite prepare pascal_context`` makes the
    latter two from the distributed annotations.

    Args:
        root: Folder with ``JPEGImages``, or its parent with ``VOCdevkit/VOC2010``.
        split: ``val`` or ``train``.
        background: Whether background is class 0 of 60; otherwise it is ignored, and 59 classes remain. The label
            files are the same.
    """

    # In the order of the annotations' category ids, which is what the label files count. Lists that begin with
    # aeroplane, bicycle, bird name the same classes in another order and do not fit these files.
    classes, palette = read_table("pascal_context")
    long_side_factor: ClassVar[int] = 8

    def __init__(
        self, root: str | Path = "data/pascal_context", split: str = "val", background: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(root=root, split=split, **kwargs)
        self.background = background
        if not background:
            self.classes, self.palette = self.classes[1:], self.palette[1:]

    def source(self) -> FileSource:
        """List the images of the split; raises ``DataError`` if there are none."""
        root = voc_root(self.root)
        lists = root / LISTS
        if not lists.is_dir():
            command = "python -m lightning_expedite prepare pascal_context"
            raise DataError(f"{lists}: no such folder; make it with '{command}'")
        require_split(self.split, (path.stem for path in lists.glob("*.txt")), lists)
        table = label_table(self.num_classes, reduce_zero_label=not self.background)
        names = _read_names(lists / f"{self.split}.txt")
        return FileSource(
            lists / f"{self.split}.txt",
            (Entry(name, root / IMAGES / f"{name}.jpg", Label(root / LABELS / f"{name}.png", table)) for name in names),
        )


def voc_root(root: Path) -> Path:
    """Return the folder with VOC 2010's images: ``root`` or the one below it that the archive unpacks to.

    Raises:
        DataError: If neither has images.
    """
    return find_root(root, IMAGES, f"{IMAGES}, {LABELS} and {LISTS}", below=["VOCdevkit/VOC2010", "VOC2010"])


def _read_names(path: Path) -> Iterator[str]:
    """Yield the names in a list, one per line; raises ``DataError`` for one that leaves the folder."""
    try:
        lines = read_text(path, "utf-8-sig", _LARGEST_LIST).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of names ({error})") from error
    for number, name in enumerate(map(str.strip, lines), start=1):
        place = PurePosixPath(name)
        # One that stays in the folder and has only one spelling, so that duplicates are found.
        usual = place.as_posix() == name and not place.is_absolute() and ".." not in place.parts
        if name and not (usual and name != "." and name.isprintable() and "\\" not in name):
            shown = name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}..."
            raise DataError(f"{path}, line {number}: {shown!r} is not a name within {IMAGES}; correct the list")
        if name:
            yield name
