"""Small made-up data sets on disk, in the layouts of the real ones."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

EXIF_ORIENTATION = 0x0112


def picture(height: int = 12, width: int = 16, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def class_map(height: int = 12, width: int = 16, classes: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, classes, (height, width), dtype=np.uint8)


def save(path: Path, pixels: NDArray[np.uint8], orientation: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {}
    if orientation is not None:
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        options["exif"] = exif
    Image.fromarray(pixels).save(path, **options)
    return path


def encoded(image, kind: str = "PNG", **options: object) -> bytes:
    """The content of a file of an array or a Pillow image."""
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, format=kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG file of rows, each with its filter's byte."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def make_ade20k(root: Path, count: int = 3) -> Path:
    for number in range(count):
        name = f"ADE_val_{number:08d}"
        save(root / f"images/validation/{name}.jpg", picture(seed=number))
        save(root / f"annotations/validation/{name}.png", class_map(classes=151, seed=number))
    return root


def make_cityscapes(root: Path, label_ending: str = "labelIds", classes: int = 34) -> Path:
    for city, number in (("ulm", 1), ("aachen", 0), ("aachen", 2)):
        stem = f"{city}_{number:06d}_000019"
        save(root / f"leftImg8bit/val/{city}/{stem}_leftImg8bit.png", picture(seed=number))
        save(
            root / f"gtFine/val/{city}/{stem}_gtFine_{label_ending}.png",
            class_map(classes=classes, seed=number),
        )
        save(root / f"gtFine/val/{city}/{stem}_gtFine_color.png", picture(seed=number))
    return root


def make_pascal_context(root: Path, names: str = "2008_000002\r\n\r\n2008_000007\r\n") -> Path:
    for number, name in enumerate(names.split()):
        save(root / f"JPEGImages/{name}.jpg", picture(seed=number))
        save(root / f"SegmentationClassContext/{name}.png", class_map(classes=60, seed=number))
    save(root / "JPEGImages/2009_000001.jpg", picture())
    lists = root / "ImageSets/SegmentationContext"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_bytes(names.encode())
    return root


def make_camvid(root: Path, count: int = 2) -> Path:
    for number in range(count):
        save(root / f"val/{number:04d}.png", picture(seed=number))
        save(root / f"valannot/{number:04d}.png", class_map(classes=12, seed=number))
    return root


def make_folder(root: Path) -> tuple[Path, Path]:
    for name in ("b", "nested/deep/a", "with.dot"):
        save(root / f"images/{name}.png", picture())
        save(root / f"labels/{name}.png", class_map(classes=3))
    return root / "images", root / "labels"
