"""Segment one image in one call, without Lightning, with the settings that come with the weights."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from typing_extensions import TypedDict  # pydantic needs it on Python 3.11

from ..data.palettes import Palette, class_table
from ..data.reading import rgb_pixels
from ..data.transforms import target_size, view_image
from ..errors import ConfigError, is_integer
from ..models import Segmenter, require_model
from ..protocol import Normalization, check_views, choose_resize, choose_windows, require_positive
from ..text import plain
from .finite import require_finite
from .inference import SlidingWindow, WindowLogits, all_finite, label_map, probability_maps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AnyImage = str | Path | Image.Image | NDArray[np.uint8]
"""A file, a Pillow image or an ``(H, W, 3)`` uint8 RGB array."""


class Settings(TypedDict, total=False):
    """Settings that override those that come with the weights.

    Attributes:
        window: Side of a sliding window in pixels.
        stride: Distance of windows in pixels.
        window_batch_size: Windows that go through the model at once; 4 by default.
        short_side: Length in pixels that the short side is resized to.
        long_side: Most pixels the long side may have after that.
        normalization: Pixel statistics, ``vit`` or ``deit``.
        scales: Factors on the resized size, one view of the image per factor; 1 alone by default.
        mirror: Whether each view is followed by its horizontal mirror.
    """

    window: int | None
    stride: int | None
    window_batch_size: int
    short_side: int | None
    long_side: int | None
    normalization: Normalization | None
    scales: Sequence[float]
    mirror: bool


_SETTINGS = TypeAdapter(Settings)


@dataclass(frozen=True)
class Preparation:
    """How an image is prepared for a model: its views, and the windows over each."""

    windows: SlidingWindow
    resize: tuple[int, int] | None
    normalization: Normalization
    scales: tuple[float, ...]
    mirrors: tuple[bool, ...]

    @classmethod
    def of(cls, model: Segmenter, settings: Settings) -> Preparation:
        """Build it from the settings given, else from those that come with the weights.

        Raises:
            ConfigError: Settings are unknown, out of their range or contradict each other.
        """
        for name in settings.keys() - Settings.__annotations__.keys():
            matches = difflib.get_close_matches(name, Settings.__annotations__, 1)
            hint = f"did you mean {matches[0]!r}?" if matches else f"there are {', '.join(Settings.__annotations__)}"
            raise ConfigError(f"{name!r} is not a setting; {hint}")
        _check_kinds(settings)
        protocol, normalization = model.protocol, settings.get("normalization")
        window, stride, batch = settings.get("window"), settings.get("stride"), settings.get("window_batch_size", 4)
        short, long = settings.get("short_side"), settings.get("long_side")
        require_positive(window=window, stride=stride, window_batch_size=batch, short_side=short, long_side=long)
        scales = tuple(settings.get("scales", (1.0,)))
        check_views(scales, normalization)
        side, distance = choose_windows(window, stride, protocol, model.architecture.image_size)
        return cls(
            SlidingWindow(side, distance, batch, model.convention.name),
            choose_resize(short, long, protocol),
            normalization or protocol.normalization,
            scales,
            (False, True) if settings.get("mirror") else (False,),
        )

    def views(self, pixels: NDArray[np.uint8], like: Tensor) -> list[tuple[Tensor, bool]]:
        """Return the normalised views ``(3, h, w)`` of an image, each with whether it is mirrored.

        Args:
            pixels: ``(H, W, 3)`` uint8 RGB.
            like: A tensor of the wanted device and type.
        """
        size = (pixels.shape[0], pixels.shape[1])
        return [
            (view_image(pixels, target_size(size, self.resize, scale), mirrored, self.normalization).to(like), mirrored)
            for scale in self.scales
            for mirrored in self.mirrors
        ]


@dataclass(frozen=True, eq=False)
class SegmentedImage:
    """An image and its predicted labels, as `segment` returns them.

    Attributes:
        image: ``(H, W, 3)`` uint8 RGB, upright.
        labels: ``(H, W)`` class indices, uint8 (uint16 from 257 classes on).
        classes: Names of all classes, in index order; ``None`` where they are not known.
        palette: RGB colour of each class.
        windows: Number of windows that the model ran on.
        windows_unreduced: Number of windows that the reducer left unchanged.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.unsignedinteger]
    classes: tuple[str, ...] | None
    palette: Palette
    windows: int
    windows_unreduced: int
    _logits: list[tuple[WindowLogits, bool]]

    def probabilities(self, classes: Sequence[int | str] | None = None) -> NDArray[np.float32]:
        """Compute the probabilities of classes at the image's resolution.

        Only logits at patch resolution are kept, and only the requested classes are upsampled.

        Args:
            classes: Indices or names; all classes by default.

        Returns:
            ``(len(classes), H, W)``: softmax over all classes, averaged over scales and mirrors. The labels are those
            of the largest.

        Raises:
            ConfigError: There is no such class, or ``classes`` is not a list.
        """
        if classes is not None:
            _require_list("classes", classes)
        indices = range(len(self.palette)) if classes is None else [self._index(name) for name in classes]
        size = (self.labels.shape[0], self.labels.shape[1])
        with torch.inference_mode():
            maps: NDArray[np.float32] = probability_maps(self._logits, size, list(indices)).numpy()
        return maps

    def figure(self, opacity: float = 0.5) -> Figure:
        """Draw the labels over the image, with a legend of the classes that occur."""
        from ..visualization import overlay

        return overlay(self.image, self.labels, classes=self.classes, palette=self.palette, opacity=opacity)

    def compare(self, reduced: SegmentedImage, label: NDArray[np.integer] | None = None) -> Figure:
        """Draw these labels beside those of the same image with a reducer; see `visualization.compare`.

        Args:
            reduced: The same image, labelled with a reducer.
            label: Ground truth ``(H, W)``, 255 = ignored.
        """
        from ..visualization import compare

        return compare(self.image, self.labels, reduced.labels, label=label, classes=self.classes, palette=self.palette)

    def _repr_png_(self) -> bytes:
        """Return the figure for notebooks."""
        from ..visualization import figure_bytes

        return figure_bytes(self.figure())

    def __repr__(self) -> str:
        (height, width), found = self.labels.shape, len(np.unique(self.labels))
        return f"SegmentedImage({height} x {width} pixels, {found} of {len(self.palette)} classes)"

    def _index(self, name: int | str) -> int:
        if isinstance(name, str):
            if self.classes is None or name not in self.classes:
                known = ", ".join(self.classes or ()) or "none; use indices"
                raise ConfigError(f"there is no class named {name!r}; known names: {known}")
            return self.classes.index(name)
        if not is_integer(name) or not 0 <= name < len(self.palette):
            raise ConfigError(f"class {name} does not exist: indices are 0 to {len(self.palette) - 1}")
        return name


def segment(
    model: Segmenter,
    image: AnyImage,
    *,
    classes: Sequence[str] | None = None,
    palette: Palette | None = None,
    **settings: Unpack[Settings],
) -> SegmentedImage:
    """Segment an image of any size; the labels are those that ``predict`` writes.

    Size, windows and normalisation default to those that come with the weights (``model.protocol``). The model runs on
    its device and in its precision.

    Args:
        model: From `load`, with a reducer or without.
        image: A file, a Pillow image or an ``(H, W, 3)`` uint8 RGB array.
        classes: Names of the classes in index order; by default those stored with the model, or of the data set that it
            was trained on, where that is known.
        palette: RGB colour of each class; by default the data set's, or generated ones.
        **settings: See `Settings`.

    Raises:
        DataError: The image cannot be read, or is of another shape or type.
        ConfigError: A setting is out of its range, or there are not as many names or colours as classes.
        NumericalError: The model's logits are NaN or infinite.
    """
    require_model(model)
    for word, entries in (("classes", classes), ("palette", palette)):
        if entries is not None:
            _require_list(word, entries)
    table = class_table(model.data_set, model.num_classes)
    names = tuple(classes) if classes is not None else model.classes or table.names
    colours = palette or table.palette
    for word, given in (("classes", names), ("palette", colours)):
        if given is not None and len(given) != model.num_classes:
            raise ConfigError(f"{word} has {len(given)} entries; the model has {model.num_classes} classes")
    pixels, preparation = rgb_pixels(image), Preparation.of(model, settings)
    with torch.inference_mode():
        views = preparation.views(pixels, next(model.parameters()))
        logits = [(preparation.windows.window_logits(model, view), mirrored) for view, mirrored in views]
        labels = label_map(logits, (pixels.shape[0], pixels.shape[1])).cpu().numpy()
        name = str(image) if isinstance(image, (str, Path)) else "the image"
        require_finite(all_finite(logits), model, name)
    return SegmentedImage(
        pixels,
        labels.astype(np.uint8 if model.num_classes <= 256 else np.uint16),
        names,
        colours,
        sum(len(part.logits) for part, _ in logits),
        sum(int(part.unreduced) for part, _ in logits),
        logits,
    )


def _check_kinds(settings: Settings) -> None:
    """Raise `ConfigError`, naming it, for a setting whose value is of another type; NumPy's numbers are allowed."""
    plain_values = {
        name: value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
        for name, value in settings.items()
    }
    try:
        _SETTINGS.validate_python(plain_values, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        name, expected = first["loc"][0], first["msg"].replace("Input should be", "it must be")
        if first["type"] in ("is_instance_of", "sequence_str"):
            expected = "it must be a list"
        raise ConfigError(f"{name} is {plain(repr(plain_values[str(name)]), 60)}: {expected}") from error


def _require_list(word: str, given: object) -> None:
    """Raise `ConfigError` for a text or anything else that has no entries."""
    if isinstance(given, str) or not isinstance(given, Collection):
        raise ConfigError(f"{word} is {plain(repr(given), 60)}: it must be a list")
