"""Reading of single image and label files; whatever is wrong with one becomes a ``DataError`` that names it."""

import hashlib
import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from ..errors import DataError
from ..files import expand_home, require_regular
from .samples import IGNORE_INDEX, Size
from .transforms import MOST_PIXELS

# What Pillow raises on damaged files: SyntaxError for broken PNG chunks, ValueError for impossible headers.
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_ORIENTATION_TAG = 0x0112
_TURNED_BY_A_QUARTER = (5, 6, 7, 8)
_NO_FRACTIONS = "floating-point samples are not supported; convert the image to 8 or 16 bits"
_UNSUPPORTED_MODES = ("LAB", "HSV", "RGBa", "La")  # OpenCV reads these as RGB, or with other values
_LOSSY = ("JPEG", "MPO", "JPEG2000", "AVIF", "WEBP")
_GREY_STEPS = {"L;2": 85, "L;4": 17}
# JPEG's and PNG's last bytes. A few programs append some of their own.
_END_MARKS = (b"\xff\xd9", b"IEND\xaeB`\x82")
_BYTES_SEARCHED_FOR_END_MARK = 64
_FEW_BITS = 1 << 12
_ITEMS_SHOWN = 3
_ACCEPTED = "pass a path, a Pillow image or an (H, W, 3) uint8 array"

NOT_A_LABEL = -1
"""Entry of a label table for stored values that must not occur."""

if Image.MAX_IMAGE_PIXELS is not None:  # Pillow warns from a third of that on
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, MOST_PIXELS)


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


def first_few(items: Iterable[object]) -> str:
    """Return the first items as text, and the number of further ones."""
    shown = [str(item) for item in items]
    more = len(shown) - _ITEMS_SHOWN
    return ", ".join(shown[:_ITEMS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def digest_of(contents: Iterable[bytes | memoryview]) -> str:
    """Return the first 16 hex digits of the SHA-256 over all ``contents``, one after the other."""
    return hashlib.sha256(b"".join(contents)).hexdigest()[:16]


def read_bytes(path: Path) -> bytes:
    """Read a file; raises ``DataError`` if it is missing or not a regular file."""
    try:
        require_regular(path)
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def read_image(path: Path, data: bytes | None = None, warn: Callable[[str], None] = warnings.warn) -> NDArray[np.uint8]:
    """Read an image file as ``(H, W, 3)`` uint8 RGB, turned upright by its EXIF orientation.

    OpenCV decodes all but a few formats, like the reference implementation: other JPEG decoders differ in some pixels.

    Args:
        path: The file.
        data: Its content, if it was read already.
        warn: Called with a sentence if the image is suspicious.

    Raises:
        DataError: If the file is missing, cut short, or damaged so that OpenCV notices; it decodes a JPEG or WebP with
            changed bytes in its middle without an error.
    """
    import cv2

    data = read_bytes(path) if data is None else data
    with _opened(path, io.BytesIO(data)) as stored:
        size = _size_of(stored)
        # OpenCV multiplies a TIFF's colours by alpha, and ignores an AVIF's orientation.
        if stored.format == "AVIF" or (stored.format, stored.mode) == ("TIFF", "RGBA"):
            return _from_pillow(stored)
    encoded = np.frombuffer(data, np.uint8)
    try:
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        if image is not None and image.dtype == np.uint16:
            if image.max() < _FEW_BITS:
                warn(
                    f"some images have 16 bits per sample but only values below {_FEW_BITS} (12 bits or fewer), so that"
                    " the model sees them nearly black: scale them to the full 16 bits"
                )
            image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise DataError(f"{path}: not a readable image ({error.err}); fetch it again or remove it") from error
    if image is None or image.dtype != np.uint8:
        raise DataError(f"{path}: not a readable image; fetch it again or remove it")
    if (read := Size(*image.shape[:2])) != size:
        raise DataError(
            f"{path}: its header says {size.width} x {size.height} pixels, but {read.width} x {read.height} were read;"
            " the image is damaged: fetch it again or remove it"
        )
    if not any(mark in data[-_BYTES_SEARCHED_FOR_END_MARK:] for mark in _END_MARKS):
        # OpenCV fills what is missing of a file with grey; Pillow raises.
        with _opened(path, io.BytesIO(data)) as stored:
            stored.load()
    rgb: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def rgb_pixels(image: str | Path | Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image from any supported source as ``(H, W, 3)`` uint8 RGB.

    Args:
        image: A file, read by ``read_image``; a Pillow image, treated alike (turned upright, alpha dropped, the upper
            8 of 16 bits); or an array ``(H, W, 3)`` uint8 RGB.

    Raises:
        DataError: If the file cannot be read, or the image has another shape or type.
    """
    if isinstance(image, (str, Path)):
        return read_image(expand_home(image))
    if isinstance(image, Image.Image):
        try:
            return _from_pillow(image)
        except PILLOW_ERRORS as error:
            raise DataError(f"the image cannot be read ({error}); fetch it again") from error
    if not isinstance(image, np.ndarray):
        raise DataError(f"the image is of type {type(image).__name__}; {_ACCEPTED}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(f"the image is an array of shape {image.shape} and type {image.dtype}; {_ACCEPTED}")
    return image


def _from_pillow(image: Image.Image) -> NDArray[np.uint8]:
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F":
        raise DataError(f"the image: {_NO_FRACTIONS}")
    if upright.mode.startswith("I"):
        samples = np.asarray(upright).clip(0, 0xFFFF) >> 8
        return np.repeat(samples.astype(np.uint8)[..., None], 3, axis=2)
    return np.array(upright.convert("RGB"))


def read_label(path: Path, table: NDArray[np.int16], data: bytes | None = None) -> NDArray[np.uint8]:
    """Read a label file as ``(H, W)`` uint8 class indices, 255 = ignored.

    Of palette files the indices count, not the colours. Like an image, it is turned upright by its EXIF orientation.

    Args:
        path: The file.
        table: Class index of each stored value, see ``label_table``.
        data: The file's content, if it was read already.

    Raises:
        DataError: If the file is missing or damaged, has several channels or a value that is not a class.
    """
    with _opened(path, io.BytesIO(read_bytes(path) if data is None else data), "label") as stored:
        kind, step = stored.format, _grey_step(stored)
        values = np.asarray(ImageOps.exif_transpose(stored) if _orientation(stored) else stored)
    if kind in _LOSSY or step is None or values.dtype.kind == "f":
        raise DataError(f"{path}: {kind} files of this kind do not keep label values; store labels as 8-bit PNG")
    codes = values // step if step > 1 else values
    if values.dtype != np.uint8:  # 1, 16 or 32 bits per pixel: values beyond the table map to one more entry
        codes = np.where((values >= 0) & (values < len(table)), values, len(table)).astype(np.intp)
    classes: NDArray[np.int16] = np.append(table, np.int16(NOT_A_LABEL))[codes]
    outside = classes == NOT_A_LABEL
    if outside.any():
        raise DataError(
            f"{path}: label values {first_few(np.unique(values[outside]))} are not classes; check that the"
            " file belongs to this data set and that its classes are complete"
        )
    return classes.astype(np.uint8)


def image_header(path: Path, kind: Literal["image", "label"] = "image") -> Size:
    """Return the size of an upright image or label from its header alone.

    Raises:
        DataError: If the file is missing, not an image, not supported, or a label of several channels.
    """
    with _opened(path, kind=kind) as image:
        return _size_of(image)


def size_mismatch(label: object, label_size: Size, image_size: Size) -> DataError:
    """Return the error for a label whose size is not its image's."""
    return DataError(
        f"{label}: the label is {label_size.width} x {label_size.height} pixels, its image"
        f" {image_size.width} x {image_size.height}; labels must have their image's size"
    )


@contextmanager
def _opened(path: Path, content: io.BytesIO | None = None, kind: str = "image") -> Iterator[Image.Image]:
    """Open a file with Pillow; what Pillow raises meanwhile, or cannot read, becomes a ``DataError``."""
    try:
        if content is None:
            require_regular(path)
        with Image.open(content or path) as image:
            if image.width * image.height > MOST_PIXELS:
                size = f"{image.width} x {image.height} pixels"
                raise DataError(f"{path}: {size} are more than {MOST_PIXELS:,}; cut the image into tiles")
            if kind == "label" and (channels := len(image.getbands())) != 1:
                raise DataError(
                    f"{path}: the label has {channels} channels; labels hold one class index per pixel, in one channel:"
                    " convert colours to indices first"
                )
            if kind == "image" and image.mode == "F":
                raise DataError(f"{path}: {_NO_FRACTIONS}")
            if kind == "image" and image.mode in _UNSUPPORTED_MODES:
                raise DataError(f"{path}: images of the kind {image.mode} are not supported; convert the image to RGB")
            yield image
    except PILLOW_ERRORS as error:
        reason = "of no known format" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"{path}: not a readable {kind} ({reason}); fetch it again or remove it") from error


def _size_of(image: Image.Image) -> Size:
    """Return the size of an opened image when it is upright."""
    width, height = image.size
    return Size(width, height) if _orientation(image) in _TURNED_BY_A_QUARTER else Size(height, width)


def _orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation that is still to be applied; Pillow applies a TIFF's by itself."""
    content = image.info.get("exif")
    if content is None and isinstance(image, PngImageFile) and image.fp is not None:
        before = image.fp.tell()
        content = _late_exif(image.fp)
        image.fp.seek(before)
    exif = Image.Exif()
    try:
        exif.load(content or b"")
        turn: int | None = exif.get(_ORIENTATION_TAG)
    except PILLOW_ERRORS:  # no program turns an image whose EXIF data are damaged
        return None
    return turn


def _late_exif(png: IO[bytes]) -> bytes | None:
    """Return a PNG's eXIf chunk behind its pixels, for which Pillow would have to decode them."""
    png.seek(8)
    while len(head := png.read(8)) == 8:
        length = int.from_bytes(head[:4])
        if head[4:] == b"eXIf":
            return png.read(length)
        png.seek(length + 4, io.SEEK_CUR)  # with the checksum
    return None


def _grey_step(image: Image.Image) -> int | None:
    """Return Pillow's factor on grey values of fewer than 8 bits; ``None`` if it inverts black and white."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""  # a plain tuple before Pillow 11
    layout = arguments if isinstance(arguments, str) else str((arguments or ("",))[0])
    kind, _, packing = layout.rstrip("R").partition(";")
    return None if "I" in packing else _GREY_STEPS.get(f"{kind};{packing}", 1)
