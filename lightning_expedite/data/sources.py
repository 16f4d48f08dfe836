"""Lists of image files with their labels: finding, pairing and checking them."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .reading import digest_of, first_few, image_header, read_bytes, read_image, read_label, size_mismatch
from .samples import Contents, ListedImage

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
        images = defaultdict(list)
        for entry in self.entries:
            images[entry.name].append(entry.image.name)
        if twice := [f"{name} ({', '.join(files)})" for name, files in images.items() if len(files) > 1]:
            raise DataError(
                f"{where}: {len(twice)} names belong to several images: {first_few(twice)}; results are saved by name,"
                " so keep one file each"
            )

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
        for entry in self.entries[:: len(self.entries) // _HEADERS_CHECKED + 1]:
            image_size = image_header(entry.image)
            if labels and entry.label and (label_size := image_header(entry.label.path, "label")) != image_size:
                raise size_mismatch(entry.label.path, label_size, image_size)
        return [ListedImage(entry.name, tuple(files)) for entry, *files in zip(self.entries, *sizes, strict=True)]

    def _file_sizes(self, kind: str, paths: Sequence[Path]) -> list[int]:
        sizes = [_size_of(path) for path in paths]
        for problem, size in (("missing", None), ("empty", 0)):
            if found := [path for path, own in zip(paths, sizes, strict=True) if own == size]:
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


def find_root(root: Path, marker: str, layout: str, below: Iterable[str] = ()) -> Path:
    """Return the folder of the data set: ``root`` itself or one of those ``below`` it.

    Args:
        root: The folder the user gave.
        marker: Pattern of a folder that every copy of the data set has.
        layout: What is expected in the folder, for the message.
        below: Folders that archives of the data set unpack to.

    Raises:
        DataError: If no folder holds it.
    """
    for folder in (root, *(root / name for name in below)):
        if any(path.is_dir() for path in folder.glob(marker)):
            return folder
    problem = f"no folder {marker} in it" if root.is_dir() else "no such folder"
    raise DataError(f"{root}: {problem}; set the data set's root to the folder with {layout}")


def require_split(split: str, existing: Iterable[str], where: Path) -> None:
    """Raise ``DataError`` that lists the existing splits if ``split`` is none of them."""
    splits = sorted(existing)
    if split not in splits:
        raise DataError(f"{where}: no split {split!r}; there are: {', '.join(splits) or 'none'}")


def folders_in(folder: Path) -> list[str]:
    """Return the names of the folders directly in ``folder``."""
    return [path.name for path in folder.iterdir() if path.is_dir()]


def images_below(folder: Path, ending: str = "") -> dict[str, Path]:
    """Return the images below ``folder``, nested ones included; links are followed, hidden files and folders skipped.

    Args:
        folder: The folder.
        ending: How names have to end, such as ``_leftImg8bit.png``.

    Returns:
        The files in the order of their paths, keyed by path below ``folder`` with suffix, ``/``-separated.

    Raises:
        DataError: If the folder does not exist.
    """
    return {name: path for name, path in _find_images(folder)[0].items() if name.endswith(ending)}


def _find_images(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the images below a folder, and a warning of those that cannot be read."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; check the path")
    found, others, seen = {}, [], {folder.resolve()}
    for parent, folders, files in os.walk(folder, followlinks=True):
        below = {name: Path(parent, name).resolve() for name in sorted(folders) if not name.startswith(".")}
        folders[:] = [name for name, real in below.items() if real not in seen]
        seen.update(below.values())  # a link back up would list the same images without end
        for path in (Path(parent, name) for name in files if not name.startswith(".")):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                found[path.relative_to(folder).as_posix()] = path
            elif path.suffix.lower() in _OTHER_IMAGE_SUFFIXES:
                others.append(readable(path.name))
    names = first_few(sorted(others))
    problem = f"{folder}: {len(others)} images have formats that are not read: {names}; convert them to PNG"
    return dict(sorted(found.items())), [problem] if others else []


def list_folder(path: Path) -> FileSource:
    """List all images below a folder, or a single image file, without labels.

    Raises:
        DataError: If the folder is missing, holds no images or two share a name.
    """
    if path.exists() and not path.is_dir():
        return FileSource(path, [Entry(readable(path.stem), path)])
    found, warnings = _find_images(path)
    return FileSource(path, (Entry(readable(_without_suffix(name)), image) for name, image in found.items()), warnings)


def pair_folders(images: Path, labels: Path, table: NDArray[np.int16]) -> FileSource:
    """List all images below a folder; labels have the same relative name below another.

    Raises:
        DataError: If a folder is missing, there are no images, two share a name or one has several labels.
    """
    found, warnings = _find_images(images)
    if not labels.is_dir():
        raise DataError(f"{labels}: no such folder; labels are expected there, named like their images, as PNG")
    by_name = defaultdict(list)
    for relative, path in images_below(labels).items():
        by_name[_without_suffix(relative)].append(path)
    entries = []
    for name, path in ((_without_suffix(relative), path) for relative, path in found.items()):
        label, *others = by_name.pop(name, [labels / f"{name}.png"])
        if others:
            raise DataError(f"{label} and {others[0].name} are both labels of {path}: keep one of them")
        entries.append(Entry(readable(name), path, Label(label, table)))
    if by_name:
        unused = first_few(readable(Path(name).name) for name in by_name)
        warnings.append(f"{labels}: {len(by_name)} labels have no image and are not used: {unused}")
    return FileSource(images, entries, warnings)


def readable(name: str) -> str:
    r"""Return a file's name as text: bytes that are not UTF-8 become escapes such as ``\xdf``."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _without_suffix(relative: str) -> str:
    return str(Path(relative).with_suffix(""))
