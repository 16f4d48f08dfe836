"""Your own images and labels in two folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError
from ..files import expand_home, read_text
from .base import SegmentationDataModule
from .palettes import generated_palette
from .reading import label_table
from .samples import IGNORE_INDEX
from .sources import FileSource, list_folder, pair_folders

_LONGEST_NAME = 200


class Folder(SegmentationDataModule):
    """A folder of images and a folder of labels.

    All images below ``images`` are read, including nested folders. The label of ``images/a/b.jpg`` is
    ``labels/a/b.png`` (or another lossless format): one channel or a palette, values 0 to n - 1 for the classes, 255
    ignored.

    Args:
        images: Folder of the images.
        labels: Folder of the labels; without it, images can be predicted but not scored.
        classes: Class names in index order, or a text file with one name per line.
        ignore: Further label values to ignore.
        reduce_zero_label: Whether labels store classes from 1 on and 0 is ignored, as in ADE20K.

    Raises:
        ConfigError: If there are no classes or more than a label file can store.
        DataError: If the text file of classes cannot be read.
    """

    def __init__(
        self,
        images: str | Path,
        labels: str | Path | None = None,
        classes: Sequence[str] | Path = (),
        ignore: Sequence[int] = (),
        reduce_zero_label: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=images, split="all", **kwargs)
        names = _read_classes(Path(classes)) if isinstance(classes, (str, Path)) else tuple(classes)
        if not 0 < len(names) < IGNORE_INDEX:
            raise ConfigError(f"classes has {len(names)} names: it must have between 1 and {IGNORE_INDEX - 1}")
        for name in names:
            if not name.isprintable() or len(name) > _LONGEST_NAME:
                raise ConfigError(
                    f"classes has {name[:20]!r}: names have up to {_LONGEST_NAME} characters, all printable"
                )
            if names.count(name) > 1:
                raise ConfigError(f"classes has {name!r} more than once: each class needs a name of its own")
        if not all(0 <= value <= IGNORE_INDEX for value in ignore):
            raise ConfigError(f"ignore is {list(ignore)}: label values lie between 0 and {IGNORE_INDEX}")
        self.classes = names
        self.palette = generated_palette(len(names))
        self.labels = None if labels is None else expand_home(labels)
        self.ignore = tuple(ignore)
        self.reduce_zero_label = reduce_zero_label

    def source(self) -> FileSource:
        """List the images; raises ``DataError`` if there are none."""
        if self.labels is None:
            return list_folder(self.root)
        table = label_table(self.num_classes, self.ignore, self.reduce_zero_label)
        return pair_folders(self.root, self.labels, table)


def _read_classes(path: Path) -> tuple[str, ...]:
    try:
        lines = read_text(expand_home(path), "utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a text file with one class name per line ({error})") from error
    return tuple(line.strip() for line in lines if line.strip())
