"""Reading of single image and label files; what is wrong with one becomes a ``DataError`` that names it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lightning_expedite.data.samples import IGNORE_INDEX, Size
from lightning_expedite.errors import DataError
from lightning_expedite.files import expand_home, require_regular

# What Pillow raises on damaged files: SyntaxError for broken PNG chunks, ValueError for impossible headers.
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_ORIENTATION_TAG = 0x0112
_TURNED_BY_A_QUARTER = (5, 6, 7, 8)
_UNSUPPORTED_MODES = ("LAB", "HSV", "RGBa", "La")  # OpenCV takes their values for RGB, or for others than they are
_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_LOSSY = ("JPEG", "MPO", "JPEG2000", "AVIF", "WEBP")
_GREY_STEPS = {"L;2": 85, "L;4": 17}
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


def digest_of(contents: Iterable[bytes | memoryview]) -> str:
    """Return the first 16 hex digits of the SHA-256 over all ``contents``, one after the other."""
    total = hashlib.sha256()
    for content in contents:
        total.update(content)
    return total.hexdigest()[:16]


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file with `decode_image`."""
    return decode_image(read_bytes(path), path)


def decode_image(data: bytes, path: Path) -> NDArray[np.uint8]:
    """Decode the content of an image file as ``(H, W, 3)`` uint8 RGB, turned upright as its EXIF orientation says.

    OpenCV decodes it, like the reference implementation: other JPEG decoders differ in some pixels.

    Raises:
        DataError: If the file is missing, cut short, or damaged so that OpenCV notices; it decodes a JPEG or
            WebP with changed bytes in its middle without a word.
    """
    import cv2

    size = _header_size(path, io.BytesIO(data))  # also refuses what OpenCV would read in its own way
    if data.startswith(_TIFF_MARKS) and (transparent := _transparent_tiff(path, data)) is not None:
        return transparent
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise DataError(f"{path}: not a readable image ({error.err}); fetch it again or remove it") from error
    if image is None:
        raise DataError(f"{path}: not a readable image; fetch it again or remove it")
    if image.shape[:2] != size:
        raise DataError(
            f"{path}: its header says {size.width} x {size.height} pixels, but {image.shape[1]} x {image.shape[0]} were"
            " read; the image is damaged: fetch it again or remove it"
        )
    if not any(mark in data[-_BYTES_SEARCHED_FOR_END_MARK:] for mark in _END_MARKS):
        # OpenCV fills what is missing of a file cut short with grey and says nothing. Pillow tells.
        _require_complete(path, data)
    rgb: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def rgb_pixels(image: str | Path | Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image from any of the places it may come from as ``(H, W, 3)`` uint8 RGB.

    Args:
        image: A file, read as ``read_image`` does; a Pillow image, treated alike (turned upright, alpha left out, of
            16 bits the upper 8); or an array ``(H, W, 3)`` uint8 RGB.

    Raises:
        DataError: If the file cannot be read, or the image is of another shape or type.
    """
    if isinstance(image, (str, Path)):
        return read_image(expand_home(image))
    if isinstance(image, Image.Image):
        return _from_pillow(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"the image is {_described(image)}; give a path, a Pillow image or an (H, W, 3) uint8 array")
    if not image.size:
        raise DataError(f"the image has no pixels: its shape is {image.shape}")
    return image


def _from_pillow(image: Image.Image) -> NDArray[np.uint8]:
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "F":
            raise DataError("the image has floating-point samples, which are not supported; convert it to 8 or 16 bits")
        if upright.mode.startswith("I"):
            samples = np.asarray(upright).clip(0, 0xFFFF) >> 8
            return np.repeat(samples.astype(np.uint8)[..., None], 3, axis=2)
        return np.array(upright.convert("RGB"))
    except PILLOW_ERRORS as error:
        raise DataError(f"the image cannot be read ({error}); fetch it again") from error


def _described(image: object) -> str:
    if isinstance(image, np.ndarray):
        return f"an array of shape {image.shape} and type {image.dtype}"
    return f"of type {type(image).__name__}"


def read_label(path: Path, table: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Read a label file with `decode_label`."""
    return decode_label(read_bytes(path), path, table)


def decode_label(data: bytes, path: Path, table: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Decode the content of a label file as ``(H, W)`` uint8 class indices, 255 = ignored.

    Of palette files the indices count, not the colours.

    Args:
        data: The file's content.
        path: Its path, for messages.
        table: Class index of each stored value, see ``label_table``.

    Raises:
        DataError: If the file is missing or damaged, has several channels or a value that is no class.
    """
    try:
        with Image.open(io.BytesIO(data)) as stored:
            kind, step = stored.format, _grey_step(stored)
            values = np.asarray(stored)
    except PILLOW_ERRORS as error:
        raise DataError(f"{path}: not a readable label ({error}); fetch it again") from error
    if values.ndim != 2:
        raise _several_channels(path, values.shape[2])
    if kind in _LOSSY or step is None or values.dtype.kind == "f":
        raise DataError(f"{path}: {kind} files of this kind do not keep label values; store labels as 8-bit PNG")
    codes = values // step if step > 1 else values
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


def _grey_step(image: Image.Image) -> int | None:
    """Tell what Pillow multiplies grey values of fewer than 8 bits by; ``None`` where it turns black into white."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""  # a plain tuple before Pillow 11
    layout = arguments if isinstance(arguments, str) else str((arguments or ("",))[0])
    kind, _, packing = layout.rstrip("R").partition(";")
    return None if "I" in packing else _GREY_STEPS.get(f"{kind};{packing}", 1)


def image_header(path: Path) -> Size:
    """Return the size of an upright image from its header alone.

    Raises:
        DataError: If the file is missing or no image.
    """
    try:
        require_regular(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return _header_size(path, path)


def _header_size(path: Path, content: Path | io.BytesIO) -> Size:
    try:
        with Image.open(content) as image:
            turn = _orientation(image)
            width, height = image.size
            mode = image.mode
    except PILLOW_ERRORS as error:
        reason = "of no known format" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"{path}: not a readable image ({reason}); fetch it again or remove it") from error
    if mode == "F":
        raise DataError(f"{path}: floating-point samples are not supported; convert the image to 8 or 16 bits")
    if mode in _UNSUPPORTED_MODES:
        raise DataError(f"{path}: images of the kind {mode} are not supported; convert the image to RGB")
    return Size(width, height) if turn in _TURNED_BY_A_QUARTER else Size(height, width)


def _orientation(image: Image.Image) -> int | None:
    if "exif" not in image.info:  # to look for what is not there would decode a whole PNG
        return None
    try:
        turn: int | None = image.getexif().get(_ORIENTATION_TAG)
    except PILLOW_ERRORS:  # nobody turns an image whose EXIF data are damaged
        return None
    return turn


def label_header(path: Path) -> Size:
    """Return the size of a label from its header alone.

    Raises:
        DataError: If the file is missing, no image or has several channels.
    """
    try:
        require_regular(path)
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


def _transparent_tiff(path: Path, data: bytes) -> NDArray[np.uint8] | None:
    """Read a TIFF with an alpha channel, by which OpenCV would multiply the colours; ``None`` for other files."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _from_pillow(image) if image.mode == "RGBA" else None
    except (*PILLOW_ERRORS, DataError) as error:
        raise DataError(f"{path}: not a readable image ({error}); fetch it again or remove it") from error


def read_bytes(path: Path) -> bytes:
    """Read a file; raises ``DataError`` where it is missing or no regular file."""
    try:
        require_regular(path)
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
