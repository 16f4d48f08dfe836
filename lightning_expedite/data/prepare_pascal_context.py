"""Converts the distributed PASCAL-Context annotations to the label files and lists that ``PascalContext`` reads.

Two complete distributions exist: ``trainval_merged.json`` of PASCAL in Detail, with run-length encoded masks by
category, and ``train.pth`` and ``val.pth``, finished label images by image id.
"""

import io
import json as json_format
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..errors import ConfigError, DataError
from ..files import expand_home, write_atomically
from .pascal_context import IMAGES, LABELS, LISTS, voc_root
from .reading import first_few, image_header, read_bytes, size_mismatch
from .samples import IGNORE_INDEX, Size

SPLITS = ("train", "val")
JSON_NAME = "trainval_merged.json"
_LONGEST_SIDE = 10_000  # VOC's images have 500 pixels
_MOST_BITS = 50  # of a run's length

# Category ids of PASCAL in Detail that are classes here, ascending: the position is the class index.
CATEGORY_IDS = (
    *(0, 2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85),
    *(98, 104, 105, 113, 115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296),
    *(308, 324, 326, 347, 349, 354, 355, 360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458),
)


class Prepared(NamedTuple):
    """Summary of a conversion: images per list, and how many label files are new or were there already."""

    output: Path
    images: dict[str, int]
    written: int
    unchanged: int


_Labels = dict[str, Callable[[], NDArray[np.uint8]]]
"""What makes the label ``(H, W)`` uint8 of each image, by name."""


def prepare_pascal_context(
    root: Path | str,
    masks: Path | str | None = None,
    json: Path | str | None = None,
    output: Path | str | None = None,
    overwrite: bool = False,
) -> Prepared:
    """Write ``SegmentationClassContext/*.png`` and ``ImageSets/SegmentationContext/{train,val}.txt``.

    Nothing is written before every image is found, and a list only after all its labels. Files of the same content
    are kept, so an interrupted conversion can simply be repeated.

    Args:
        root: VOC 2010: the folder with ``JPEGImages``, or its parent with ``VOCdevkit/VOC2010``.
        masks: Folder with ``train.pth`` and ``val.pth``. Only images are unpickled from them.
        json: ``trainval_merged.json``; takes several GiB of memory. Without either, both are looked for in ``root``,
            the masks first.
        output: Where to write; by default beside ``JPEGImages``.
        overwrite: Whether label files and lists of other content are replaced.

    Raises:
        ConfigError: If both ``masks`` and ``json`` are given.
        DataError: If a file is missing or damaged, does not fit the images, or would be overwritten.
    """
    if masks is not None and json is not None:
        raise ConfigError("masks and json are both given: each has all annotations, choose one")
    voc = voc_root(expand_home(root))
    if masks is None and json is None:
        if all((voc / f"{split}.pth").is_file() for split in SPLITS):
            masks = voc
        elif (voc / JSON_NAME).is_file():
            json = voc / JSON_NAME
        else:
            raise DataError(f"{voc}: neither train.pth and val.pth nor {JSON_NAME} there; set masks or json")
    if json is not None:
        annotations = _read_json(expand_home(json))
    else:
        annotations = {split: _read_masks(expand_home(masks or voc) / f"{split}.pth") for split in SPLITS}
    existing = {path.stem for path in (voc / IMAGES).glob("*.jpg")}
    missing = [f"{name}.jpg" for split in SPLITS for name in annotations[split] if name not in existing]
    if missing:
        raise DataError(f"{voc / IMAGES}: {len(missing)} annotated images are missing: {first_few(missing)}")
    target = voc if output is None else expand_home(output)
    written = 0
    for split in SPLITS:
        for name, make_label in annotations[split].items():
            label, image = make_label(), voc / IMAGES / f"{name}.jpg"
            if label.shape != (size := image_header(image)):
                raise size_mismatch(image, Size(*label.shape), size)
            content = io.BytesIO()
            Image.fromarray(label).save(content, format="PNG")
            written += _write(target / LABELS / f"{name}.png", content.getvalue(), overwrite)
        names = "".join(f"{name}\n" for name in sorted(annotations[split]))
        _write(target / LISTS / f"{split}.txt", names.encode(), overwrite)
    images = {split: len(annotations[split]) for split in SPLITS}
    return Prepared(target, images, written, sum(images.values()) - written)


def _write(path: Path, content: bytes, overwrite: bool) -> bool:
    """Write a file unless the same is there already; return whether it was written."""
    if path.exists():
        if path.read_bytes() == content:
            return False
        if not overwrite:
            raise DataError(f"{path}: exists with other content; move it away, choose another output or set overwrite")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return True


def _name_of_id(path: Path, image_id: object) -> str:
    """Return VOC's name of an image: 2008000002 is 2008_000002."""
    digits = str(image_id)
    if not re.fullmatch(r"[0-9]{10}", digits):
        raise DataError(f"{path}: {image_id!r} is not an image id of VOC 2010, which have ten digits; fetch it again")
    return f"{digits[:4]}_{digits[4:]}"


def _read_masks(path: Path) -> _Labels:
    """Read a file of finished labels: a pickled dict from image id to Pillow image."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; masks must be the folder with train.pth and val.pth")
    try:
        # A pickle may run any code. Only this class is let through; it is rebuilt from mode, size and bytes.
        with torch.serialization.safe_globals([Image.Image]):
            masks = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make the loader fail in many ways
        # torch's own message is left out: it advises to load the file without protection.
        raise DataError(f"{path}: damaged, or holds more than label images; fetch it again") from error
    if not isinstance(masks, dict) or not all(isinstance(mask, Image.Image) for mask in masks.values()):
        raise DataError(f"{path}: not a table of label images by image id; fetch it again")
    return {
        _name_of_id(path, image_id): partial(_label_of_mask, path, image_id, mask) for image_id, mask in masks.items()
    }


def _label_of_mask(path: Path, image_id: object, mask: Image.Image) -> NDArray[np.uint8]:
    label = np.asarray(mask)
    if label.ndim != 2 or label.dtype != np.uint8:
        raise DataError(f"{path}: the label of image {image_id} has not one byte per pixel; fetch the file again")
    if ((label >= len(CATEGORY_IDS)) & (label != IGNORE_INDEX)).any():
        raise DataError(f"{path}: the label of image {image_id} has values that are not classes; fetch the file again")
    return label


def _read_json(path: Path) -> dict[str, _Labels]:
    """Read PASCAL in Detail's annotations."""
    try:
        content = json_format.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); json must be {JSON_NAME}") from error
    try:
        segments = defaultdict(list)
        for segment in content["annos_segmentation"]:
            segments[segment["image_id"]].append(segment)
        annotations: dict[str, _Labels] = {split: {} for split in SPLITS}
        for image in content["images"]:
            if image["phase"] in SPLITS:
                name = _name_of_id(path, image["image_id"])
                draw = partial(_label_of_segments, path, name, image, segments[image["image_id"]])
                annotations[image["phase"]][name] = draw
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not the annotations of PASCAL in Detail ({error!r}); fetch {JSON_NAME}") from error
    return annotations


def _label_of_segments(
    path: Path, name: str, image: dict[str, Any], segments: Sequence[dict[str, Any]]
) -> NDArray[np.uint8]:
    """Draw an image's segments over each other in the order of the file, later ones on top."""
    try:
        height, width = image["height"], image["width"]
        if not (1 <= height <= _LONGEST_SIDE and 1 <= width <= _LONGEST_SIDE):
            raise ValueError(f"the image would have {width} x {height} pixels")
        label = np.zeros((height, width), np.uint8)
        for segment in segments:
            mask = decode_mask(segment["segmentation"]["size"], segment["segmentation"]["counts"])
            label[mask] = CATEGORY_IDS.index(segment["category_id"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{path}: the segments of {name} are damaged ({error!r}); fetch it again") from error
    return label


def decode_mask(size: Sequence[int], counts: str | Sequence[int]) -> NDArray[np.bool_]:
    """Decode a run-length encoded mask of COCO's format to ``(H, W)`` bool.

    Args:
        size: Height and width in pixels.
        counts: Lengths of the runs, column by column, zeros first: as numbers or as COCO's string.

    Raises:
        ValueError: If the runs are damaged or do not fill the mask.
    """
    height, width = size
    runs = _run_lengths(counts) if isinstance(counts, str) else list(counts)
    if any(not 0 <= run <= height * width for run in runs) or sum(runs) != height * width:
        raise ValueError(f"runs do not fill {height} x {width} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _run_lengths(counts: str) -> list[int]:
    """Decode COCO's string: base 32, lowest digit first, 5 bits and a flag for "more to come"; the last is signed."""
    digits = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - ord("0")
    last = digits & 0x20 == 0
    if not last[-1:].any() or ((digits < 0) | (digits >= 64)).any():
        raise ValueError("the string of runs is damaged")
    starts = np.flatnonzero(np.append(True, last[:-1]))
    bits = 5 * (np.arange(len(digits)) - np.repeat(starts, np.diff(starts, append=len(digits))))
    if bits.max(initial=0) > _MOST_BITS:
        raise ValueError("the string of runs has numbers that are too large")
    runs = np.add.reduceat((digits & 0x1F) << bits, starts) - ((digits[last] & 0x10) << (bits[last] + 1))
    for first in (1, 2):  # from the fourth on, numbers are differences to the one two places before
        runs[first::2] = runs[first::2].cumsum()
    return list(runs.tolist())
