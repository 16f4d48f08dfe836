"""Lists of image files with their labels: finding, pairing and checking them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_expedite.data.reading import (
    decode_image,
    decode_label,
    digest_of,
    image_header,
    label_header,
    read_bytes,
    read_image,
    read_label,
    size_mismatch,
)
from lightning_expedite.data.samples import ListedImage
from lightning_expedite.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
# Headers read before a run starts: enough to notice labels that belong to other images, at once.
_HEADERS_CHECKED = 200
_NAMES_SHOWN = 3


class Label(NamedTuple):
    """A label file and the table that says what its values mean, see ``reading.label_table``."""

    path: Path
    table: NDArray[np.int16]


class Entry(NamedTuple):
    """One image of a data set; ``label`` is ``None`` where it has none by nature."""

    name: str
    image: Path
    label: Label | None = None


class FileSource:
    """An image source over files.

    Args:
        where: What the list was made from, for messages.
        entries: The images, in their order.

    Raises:
        DataError: If there are no entries or two share a name.
    """

    def __init__(self, where: Path, entries: Iterable[Entry]) -> None:
        self.where = where
        self.entries = list(entries)
        if not self.entries:
            raise DataError(f"{where}: no images there; check the folder and the split")
        self._require_unique_names()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.entries)

    def name(self, index: int) -> str:
        """Return the name of an image."""
        return self.entries[index].name

    def image(self, index: int) -> NDArray[np.uint8]:
        """Read an image as ``(H, W, 3)`` uint8 RGB; raises ``DataError`` where it is damaged."""
        return read_image(self.entries[index].image)

    def has_label(self, index: int) -> bool:
        """Tell whether an image has a label whose file is there."""
        label = self.entries[index].label
        return label is not None and label.path.exists()

    def label(self, index: int) -> NDArray[np.uint8] | None:
        """Read a label as ``(H, W)`` uint8 class indices; raises ``DataError`` where it is damaged."""
        label = self.entries[index].label
        return None if label is None else read_label(*label)

    def check(self, labels: bool = True) -> list[ListedImage]:
        """Check what file sizes and some headers can tell, before hours of work.

        Args:
            labels: Whether labels are needed, and checked.

        Returns:
            The images with the sizes of their files.

        Raises:
            DataError: If files are missing, empty, unreadable, or if labels do not fit their images.
        """
        sizes = [self._file_sizes("image", [entry.image for entry in self.entries])]
        if labels:
            if any(entry.label is None for entry in self.entries):
                raise DataError(f"{self.where}: these images have no labels to score against; predict on them instead")
            sizes.append(self._file_sizes("label", [entry.label.path for entry in self.entries if entry.label]))
        for entry in _spread(self.entries, _HEADERS_CHECKED):
            image_size = image_header(entry.image)
            if labels and entry.label and (label_size := label_header(entry.label.path)) != image_size:
                raise size_mismatch(entry.label.path, label_size, image_size)
        return [
            ListedImage(entry.name, files) for entry, files in zip(self.entries, zip(*sizes, strict=True), strict=True)
        ]

    def read(self, index: int, labels: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None, str]:
        """Return an image, its label if ``labels`` and it has one, and the digest of the files, see `Sample`.

        Raises:
            DataError: If a file is missing or damaged.
        """
        entry = self.entries[index]
        image = read_bytes(entry.image)
        if not labels or entry.label is None:
            return decode_image(image, entry.image), None, digest_of([image])
        label = read_bytes(entry.label.path)
        return decode_image(image, entry.image), decode_label(label, *entry.label), digest_of([image, label])

    def _require_unique_names(self) -> None:
        images = defaultdict(list)
        for entry in self.entries:
            images[entry.name].append(entry.image)
        twice = [f"{name} ({', '.join(path.name for path in paths)})" for name, paths in images.items() if paths[1:]]
        if twice:
            raise DataError(
                f"{self.where}: {len(twice)} names stand for several images: {first_few(twice)}; results are"
                " saved by name, so keep one file each"
            )

    def _file_sizes(self, kind: str, paths: Sequence[Path]) -> list[int]:
        sizes = [_size_of(path) for path in paths]
        missing = [path for path, size in zip(paths, sizes, strict=True) if size is None]
        empty = [path for path, size in zip(paths, sizes, strict=True) if size == 0]
        for problem, found in (("missing", missing), ("empty", empty)):
            if found:
                raise DataError(
                    f"{self.where}: {len(found)} of {len(paths)} {kind} files are {problem}:"
                    f" {first_few(map(str, found))}; complete the data set or leave these images out"
                )
        return [size for size in sizes if size]


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def find_root(root: Path, inside: Iterable[str], marker: str, layout: str) -> Path:
    """Return the folder that holds ``marker``: ``root`` itself or one below it.

    Args:
        root: The folder the user gave.
        inside: Folders below it that archives of the data set unpack to.
        marker: A folder that every copy of the data set has.
        layout: What is expected below the root, for the message.

    Raises:
        DataError: If no folder holds it.
    """
    for folder in (root, *(root / name for name in inside)):
        if (folder / marker).is_dir():
            return folder
    problem = f"no folder {marker} in it" if root.is_dir() else "no such folder"
    raise DataError(f"{root}: {problem}; set the data set's root to the folder with {layout}")


def require_split(split: str, existing: Iterable[str], where: Path) -> None:
    """Check that a split exists.

    Raises:
        DataError: If not; the message lists those that do.
    """
    splits = sorted(existing)
    if split not in splits:
        raise DataError(f"{where}: no split {split!r}; there are: {', '.join(splits) or 'none'}")


def folders_in(folder: Path) -> list[str]:
    """Return the names of the folders directly in ``folder``, sorted; none where it does not exist."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def images_below(folder: Path, ending: str = "") -> dict[str, Path]:
    """Return the image files below ``folder``, nested ones included.

    Args:
        folder: Where to look; links are followed.
        ending: Last part of the file names wanted, such as ``_leftImg8bit.png``.

    Returns:
        The files in the order of their paths, keyed by path below ``folder`` with suffix, ``/``-separated.

    Raises:
        DataError: If the folder does not exist.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; check the path")
    found = {}
    seen = {_identity(folder)}
    for parent, folders, names in os.walk(folder, followlinks=True):
        below = {name: _identity(Path(parent, name)) for name in sorted(folders)}
        folders[:] = [name for name, identity in below.items() if identity not in seen]
        seen.update(below.values())  # a link back up would list the same images without end
        for name in names:
            path = Path(parent, name)
            # Names with a dot first are hidden, such as the forks macOS leaves beside files.
            if path.suffix.lower() in IMAGE_SUFFIXES and name.endswith(ending) and not name.startswith("."):
                found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def pair_folders(images: Path, labels: Path | None, table: NDArray[np.int16]) -> FileSource:
    """Return all images below a folder; labels are PNG files of the same relative name below another.

    Raises:
        DataError: If a folder is missing, there are no images or two share a name.
    """
    if labels is not None and not labels.is_dir():
        raise DataError(f"{labels}: no such folder; labels are expected there, named like their images, as PNG")
    return FileSource(images, _pairs(images, labels, table))


def list_folder(folder: Path) -> FileSource:
    """Return all images below a folder, without labels.

    Raises:
        DataError: If the folder is missing, holds no images or two share a name.
    """
    return FileSource(folder, _pairs(folder))


def _pairs(images: Path, labels: Path | None = None, table: NDArray[np.int16] | None = None) -> Iterator[Entry]:
    for relative, path in images_below(images).items():
        name = without_suffix(relative)
        label = None if labels is None or table is None else Label(labels / f"{name}.png", table)
        yield Entry(name, path, label)


def without_suffix(relative: str) -> str:
    """Return a ``/``-separated path without its last suffix."""
    return relative[: relative.rindex(".")]


def first_few(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are."""
    shown = list(names)
    more = len(shown) - _NAMES_SHOWN
    return ", ".join(shown[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _spread(entries: Sequence[Entry], most: int) -> Iterator[Entry]:
    """Yield at most ``most`` entries, evenly over the whole list, its ends included."""
    count = min(len(entries), most)
    return (entries[at] for at in np.linspace(0, len(entries) - 1, count).round().astype(int))
