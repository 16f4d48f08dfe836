"""`variant.yml`: the sizes and evaluation settings that stand beside a checkpoint."""

import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ...errors import CheckpointError
from ...files import read_yaml
from ...protocol import Normalization, Protocol, usual_stride
from .architecture import Architecture

NORMALIZATIONS = ("vit", "deit")
LARGEST = 1_000_000
"""Of all sizes that a file may name: pixels, layers, heads or classes."""


_SHORT = reprlib.Repr()  # a value of a damaged file may be of any length
_SHORT.maxstring = _SHORT.maxother = 120


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST


class Section:
    """A mapping of a YAML file whose values are checked as they are read.

    Args:
        place: File and key, for messages.
        values: The mapping.
    """

    def __init__(self, place: str, values: Mapping[Any, Any]) -> None:
        self.place = place
        self.values = values

    def section(self, key: str) -> "Section":
        """Give a mapping below ``key``; a missing one is empty."""
        values = self.values.get(key) or {}
        if not isinstance(values, Mapping):
            raise self.error(key, "a mapping")
        return Section(f"{self.place}: {key}", values)

    def whole(self, key: str) -> int | None:
        """Give a whole number of at least 1, or ``None`` where there is none."""
        value = self.values.get(key)
        if value is not None and not _is_size(value):
            raise self.error(key, f"a whole number from 1 to {LARGEST:,}")
        return value

    def size(self, key: str) -> tuple[int, int] | None:
        """Give height and width from a pair or a single number, or ``None`` where there is none."""
        value = self.values.get(key)
        pair = [value, value] if isinstance(value, int) else value
        if pair is None:
            return None
        if not isinstance(pair, list) or len(pair) != 2 or not all(map(_is_size, pair)):
            raise self.error(key, f"one or two whole numbers from 1 to {LARGEST:,}")
        return pair[0], pair[1]

    def choice(self, key: str, options: tuple[Any, ...]) -> Any:
        """Give one of ``options``, or ``None`` where there is none."""
        value = self.values.get(key)
        if value is not None and value not in options:
            raise self.error(key, f"one of {', '.join(map(str, options))}")
        return value

    def error(self, key: str, wanted: str) -> CheckpointError:
        """Make the error of a value that is not what it has to be."""
        return CheckpointError(f"{self.place}: {key} is {_SHORT.repr(self.values.get(key))}; it must be {wanted}")


def is_there(path: Path) -> bool:
    """Tell whether there is a file.

    Raises:
        CheckpointError: What is there is none, such as a link to nothing: it must not pass for an absent file.
    """
    if path.is_file():
        return True
    if os.path.lexists(path):
        raise CheckpointError(f"{path} is no file, or a link to none; restore it from where it came, or remove it")
    return False


def read_variant(path: Path) -> Section:
    """Read a `variant.yml`; a missing file is an empty one.

    Raises:
        CheckpointError: The file is no YAML mapping.
    """
    if not is_there(path):
        return Section(str(path), {})
    try:
        values = read_yaml(path)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} is no readable YAML ({reason}); restore it from where it came") from error
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{path} must be a mapping with net_kwargs; it holds {type(values).__name__}")
    return Section(str(path), values)


def protocol_of(variant: Section) -> Protocol:
    """Give the evaluation settings of a variant; official ones without a stride use window - 32."""
    inference = variant.section("inference_kwargs")
    window = inference.whole("window_size")
    stride = inference.whole("window_stride") or (usual_stride(window) if window else None)
    if stride is not None and stride < 1:
        raise inference.error("window_stride", "given: the usual one, window - 32, leaves nothing here")
    named = [variant.section(part).choice("normalization", NORMALIZATIONS) for part in ("dataset_kwargs", "net_kwargs")]
    normalization: Normalization = named[0] or named[1] or "vit"
    return Protocol(
        short_side=inference.whole("im_size"),
        long_side=inference.whole("im_size_max"),
        window=window,
        stride=stride,
        normalization=normalization,
    )


def data_set_of(variant: Section) -> str | None:
    """Give the name of the data set that a variant says its weights were trained on."""
    name = variant.section("dataset_kwargs").values.get("dataset")
    return name if isinstance(name, str) else None


def variant_of(architecture: Architecture, protocol: Protocol) -> dict[str, Any]:
    """Describe a model in the terms of the official `variant.yml`."""
    decoder: dict[str, Any] = {"name": architecture.decoder}
    if architecture.decoder == "mask_transformer":
        decoder |= {"n_heads": architecture.decoder_heads, "n_layers": architecture.decoder_depth}
    return {
        "net_kwargs": {
            "d_model": architecture.width,
            "decoder": decoder,
            "distilled": architecture.distilled,
            "image_size": list(architecture.image_size),
            "n_cls": architecture.num_classes,
            "n_heads": architecture.heads,
            "n_layers": architecture.depth,
            "normalization": protocol.normalization,
            "patch_size": architecture.patch_size,
        },
        "inference_kwargs": {
            "im_size": protocol.short_side,
            "im_size_max": protocol.long_side,
            "window_size": protocol.window,
            "window_stride": protocol.stride,
        },
    }
