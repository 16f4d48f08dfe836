"""Reading of single image and label files; what is wrong with one becomes a ``DataError`` that names it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_expedite.data.samples import IGNORE_INDEX, Size
from lightning_expedite.errors import DataError

# What Pillow raises on damaged files: SyntaxError for broken PNG chunks, ValueError for impossible headers.
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_ORIENTATION_TAG = 0x0112
_TURNED_BY_A_QUARTER = (5, 6, 7, 8)
# JPEG's and PNG's last bytes. A few programs append some of their own.
_END_MARKS = (b"\xff\xd9", b"IEND\xaeB`\x82")
_BYTES_SEARCHED_FOR_END_MARK = 64

NOT_A_LABEL = -1
"""Entry of a label table for stored values that must not occur."""


def label_table(num_classes: int, ignore: Iterable[int] = (), reduce_zero_label: bool = False) -> NDArray[np.int16]:
    """Return the table that maps the 256 values a label file may store to class indices.

    Args:
        num_classes: Classes 0 to n - 1 are stored as they are; 255 is always ignored.
        ignore: Further stored values that are ignored.
        reduce_zero_label: Whether classes are stored from 1 on, with 0 ignored.

    Returns:
        ``(256,)``: class index, 255 where ignored, ``NOT_A_LABEL`` where the value must not occur.
    """
    table = np.full(256, NOT_A_LABEL, np.int16)
    first = int(reduce_zero_label)
    table[first : first + num_classes] = np.arange(num_classes)
    table[[*range(first), *ignore, IGNORE_INDEX]] = IGNORE_INDEX
    return table


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image as ``(H, W, 3)`` uint8 RGB, turned upright as its EXIF orientation says.

    OpenCV decodes it, like the reference implementation: other JPEG decoders differ in some pixels.

    Raises:
        DataError: If the file is missing, cut short, or damaged so that OpenCV notices; it decodes a JPEG or
            WebP with changed bytes in its middle without a word.
    """
    import cv2

    data = _read_bytes(path)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise DataError(f"{path}: not a readable image; fetch it again or remove it")
    if not any(mark in data[-_BYTES_SEARCHED_FOR_END_MARK:] for mark in _END_MARKS):
        # OpenCV fills what is missing of a file cut short with grey and says nothing. Pillow tells.
        _require_complete(path, data)
    rgb: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def read_label(path: Path, table: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Read a label as ``(H, W)`` uint8 class indices, 255 = ignored; of palette files the indices count.

    Args:
        path: A file with one channel.
        table: Class index of each stored value, see ``label_table``.

    Raises:
        DataError: If the file is missing or damaged, has several channels or a value that is no class.
    """
    try:
        with Image.open(path) as stored:
            values = np.asarray(stored)
    except PILLOW_ERRORS as error:
        raise DataError(f"{path}: not a readable label ({error}); fetch it again") from error
    if values.ndim != 2:
        raise _several_channels(path, values.shape[2])
    codes = values
    if values.dtype != np.uint8:  # 1, 16 or 32 bits per pixel: what no table has goes to one more entry
        codes = np.where((values >= 0) & (values < len(table)), values, len(table)).astype(np.intp)
    classes: NDArray[np.int16] = np.append(table, np.int16(NOT_A_LABEL))[codes]
    outside = classes == NOT_A_LABEL
    if outside.any():
        raise DataError(
            f"{path}: label values {_some(np.unique(values[outside]).tolist())} are no class; check that the"
            " file belongs to this data set and that its classes are complete"
        )
    return classes.astype(np.uint8)


def image_header(path: Path) -> Size:
    """Return the size of an upright image from its header alone.

    Raises:
        DataError: If the file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            # Asked for only where present: looking for EXIF decodes a whole PNG that has none.
            turn = image.getexif().get(_ORIENTATION_TAG) if "exif" in image.info else None
            width, height = image.size
            mode = image.mode
    except PILLOW_ERRORS as error:
        raise DataError(f"{path}: not a readable image ({error}); fetch it again or remove it") from error
    if mode == "F":
        raise DataError(f"{path}: floating-point samples are not supported; convert the image to 8 or 16 bits")
    return Size(width, height) if turn in _TURNED_BY_A_QUARTER else Size(height, width)


def label_header(path: Path) -> Size:
    """Return the size of a label from its header alone.

    Raises:
        DataError: If the file is missing, no image or has several channels.
    """
    try:
        with Image.open(path) as label:
            bands, (width, height) = len(label.getbands()), label.size
    except PILLOW_ERRORS as error:
        raise DataError(f"{path}: not a readable label ({error}); fetch it again") from error
    if bands != 1:
        raise _several_channels(path, bands)
    return Size(height, width)


def size_mismatch(label: object, label_size: Size, image_size: Size) -> DataError:
    """Return the error for a label of another size than its image."""
    return DataError(
        f"{label}: the label is {label_size.width} x {label_size.height} pixels, its image"
        f" {image_size.width} x {image_size.height}; labels must have their image's size"
    )


def _several_channels(path: Path, channels: int) -> DataError:
    return DataError(
        f"{path}: the label has {channels} channels; labels hold one class index per pixel, in one channel:"
        " convert colours to indices first"
    )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _require_complete(path: Path, data: bytes) -> None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except PILLOW_ERRORS as error:
        raise DataError(f"{path}: the image is damaged ({error}); fetch it again or remove it") from error


def _some(values: list[int], most: int = 8) -> str:
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")
