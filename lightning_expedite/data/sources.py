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
    digest_of,
    first_few,
    image_header,
    label_header,
    read_bytes,
    read_image,
    read_label,
    size_mismatch,
)
from lightning_expedite.data.samples import Contents, ListedImage
from lightning_expedite.errors import DataError

# What both Pillow, which checks files, and OpenCV, which decodes them, can read.
IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif", ".avif"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".pbm", ".pgm", ".ppm", ".pnm", ".ras"),
}
# Images that are not read here, and are worth a warning.
_OTHER_IMAGE_SUFFIXES = {
    *(".heic", ".heif", ".jxl", ".tga", ".ico", ".psd", ".svg", ".exr", ".hdr", ".pfm", ".qoi", ".pcx", ".dds"),
    *(".sgi", ".xbm", ".xpm", ".fits", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".raw", ".dcm", ".npy"),
}
# Headers read before a run starts: enough to notice labels that belong to other images, at once.
_HEADERS_CHECKED = 200


class Label(NamedTuple):
    """A label file and the table of what its values mean, see ``reading.label_table``."""

    path: Path
    table: NDArray[np.int16]


class Entry(NamedTuple):
    """One image of a data set; ``label`` is ``None`` if the data set has no labels."""

    name: str
    image: Path
    label: Label | None = None


class FileSource:
    """An image source over files.

    Args:
        where: What the list was made from, for messages.
        entries: The images, in their order.
        warnings: What is suspicious about the list, see ``Sample``.

    Raises:
        DataError: If there are no entries or two share a name.
    """

    def __init__(self, where: Path, entries: Iterable[Entry], warnings: Sequence[str] = ()) -> None:
        self.where = where
        self.entries = list(entries)
        self.warnings = tuple(warnings)
        if not self.entries:
            reasons = "".join(f" ({text})" for text in self.warnings)
            raise DataError(f"{where}: no images there; check the folder and the split{reasons}")
        self._require_unique_names()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.entries)

    def name(self, index: int) -> str:
        """Return the name of an image."""
        return self.entries[index].name

    def image(self, index: int) -> NDArray[np.uint8]:
        """Read an image as ``(H, W, 3)`` uint8 RGB; raises ``DataError`` if it is damaged."""
        return read_image(self.entries[index].image)

    def label(self, index: int) -> NDArray[np.uint8] | None:
        """Read a label as ``(H, W)`` uint8 class indices, ``None`` if there is no such file.

        Raises:
            DataError: If it is damaged.
        """
        label = self.entries[index].label
        return read_label(*label) if label is not None and label.path.exists() else None

    def read(self, index: int, labels: bool) -> Contents:
        """Read an image and, if ``labels``, its label; raises ``DataError`` if a file is missing or damaged."""
        entry, warnings = self.entries[index], list(self.warnings)
        files = [read_bytes(entry.image)]
        image, label = read_image(entry.image, files[0], warnings.append), None
        if labels and entry.label is not None:
            files.append(read_bytes(entry.label.path))
            label = read_label(*entry.label, files[1])
        return Contents(image, label, digest_of(files), tuple(warnings))

    def check(self, labels: bool = True) -> list[ListedImage]:
        """Check what file sizes and some headers can show, before hours of work.

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
        by_image = zip(*sizes, strict=True)
        return [ListedImage(entry.name, files) for entry, files in zip(self.entries, by_image, strict=True)]

    def _require_unique_names(self) -> None:
        images = defaultdict(list)
        for entry in self.entries:
            images[entry.name].append(entry.image)
        twice = [f"{name} ({', '.join(path.name for path in paths)})" for name, paths in images.items() if paths[1:]]
        if twice:
            raise DataError(
                f"{self.where}: {len(twice)} names belong to several images: {first_few(twice)}; results are"
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
                    f" {first_few(found)}; complete the data set or leave these images out"
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
    """Raise ``DataError`` that lists the existing splits if ``split`` is none of them."""
    splits = sorted(existing)
    if split not in splits:
        raise DataError(f"{where}: no split {split!r}; there are: {', '.join(splits) or 'none'}")


def folders_in(folder: Path) -> list[str]:
    """Return the names of the folders directly in ``folder``, sorted; none if it does not exist."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def files_below(folder: Path) -> dict[str, Path]:
    """Return the files below ``folder``, nested ones included; links are followed, hidden files and folders skipped.

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
        below = {name: _identity(Path(parent, name)) for name in sorted(folders) if not name.startswith(".")}
        folders[:] = [name for name, identity in below.items() if identity not in seen]
        seen.update(below.values())  # a link back up would list the same images without end
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        found.update({path.relative_to(folder).as_posix(): path for path in paths})
    return dict(sorted(found.items()))


def images_below(folder: Path, ending: str = "") -> dict[str, Path]:
    """Return the image files of `files_below` whose names end with ``ending``, such as ``_leftImg8bit.png``."""
    return {name: path for name, path in files_below(folder).items() if _is_image(path) and name.endswith(ending)}


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def pair_folders(images: Path, labels: Path | None, table: NDArray[np.int16]) -> FileSource:
    """List all images below a folder; labels have the same relative name below another, and are PNG if possible.

    Raises:
        DataError: If a folder is missing, there are no images or two share a name.
    """
    found, warnings = _split_files(images)
    if labels is None:
        return FileSource(images, (Entry(readable_name(name), path) for name, path in found), warnings)
    if not labels.is_dir():
        raise DataError(f"{labels}: no such folder; labels are expected there, named like their images, as PNG")
    # Of files that share a name the PNG file comes last, which makes it the label.
    candidates = sorted(images_below(labels).items(), key=lambda item: item[1].suffix.lower() == ".png")
    by_name = {_without_suffix(name): path for name, path in candidates}
    entries = []
    for name, path in found:
        label = by_name.pop(_without_suffix(name), labels / f"{_without_suffix(name)}.png")
        entries.append(Entry(readable_name(name), path, Label(label, table)))
    if by_name:
        unused = first_few(map(readable_name, (path.name for path in by_name.values())))
        warnings.append(f"{labels}: {len(by_name)} labels have no image and are not used: {unused}")
    return FileSource(images, entries, warnings)


def list_folder(path: Path) -> FileSource:
    """List all images below a folder, or a single image file, without labels.

    Raises:
        DataError: If the folder is missing, holds no images or two share a name.
    """
    if path.exists() and not path.is_dir():
        return FileSource(path, [Entry(readable_name(path.name), path)])
    found, warnings = _split_files(path)
    return FileSource(path, (Entry(readable_name(name), image) for name, image in found), warnings)


def _split_files(folder: Path) -> tuple[list[tuple[str, Path]], list[str]]:
    """Return the images below a folder, and a warning of those that cannot be read."""
    files = files_below(folder)
    others = [readable_name(path.name, True) for path in files.values() if path.suffix.lower() in _OTHER_IMAGE_SUFFIXES]
    problem = f"{folder}: {len(others)} images have formats that are not read: {first_few(others)}; convert them to PNG"
    return [(name, path) for name, path in files.items() if _is_image(path)], [problem] if others else []


def readable_name(relative: str, suffix: bool = False) -> str:
    r"""Return a file's name as text: bytes that are not UTF-8 become escapes such as ``\xdf``.

    Args:
        relative: Path below a folder, ``/``-separated.
        suffix: Whether its last suffix is kept.
    """
    return os.fsencode(relative if suffix else _without_suffix(relative)).decode(errors="backslashreplace")


def _without_suffix(relative: str) -> str:
    return str(Path(relative).with_suffix(""))


def _spread(entries: Sequence[Entry], most: int) -> Iterator[Entry]:
    """Yield at most ``most`` entries, evenly over the list, both ends included."""
    count = min(len(entries), most)
    return (entries[at] for at in np.linspace(0, len(entries) - 1, count).round().astype(int))
