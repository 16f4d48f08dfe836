"""From a name or a path to a checkpoint: its tensors under one set of names, and what is known about them."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...errors import CheckpointError
from ...protocol import Protocol, official_stride
from ..segmenter.architecture import CONVENTIONS, Architecture, ConventionName
from ..zoo import DEMO, DEMO_FOLDER, known_weights, resolve_checkpoint
from .files import find_weights, read_state
from .layouts import Layout, find_layout, read_architecture, unify
from .settings import (
    MODEL_CONFIG_FILE,
    VARIANT_FILE,
    VARIANT_HINT,
    StoredReducer,
    VariantFile,
    read_config,
    read_variant,
)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read from disk: float32 weights under `Segmenter`'s names, and what is known about them."""

    path: Path
    layout: str
    state: dict[str, Tensor]
    architecture: Architecture
    convention: ConventionName  # the requested one, else the layout's own
    protocol: Protocol
    classes: tuple[str, ...] | None = None  # names in the order of the logits
    reducer: StoredReducer | None = None
    data_set: str | None = None  # that the weights were trained on


def open_checkpoint(
    name: str | Path, weights_folder: str | Path | None = None, convention: ConventionName | None = None
) -> Checkpoint:
    """Find and read a checkpoint without building the model; the arguments are those of `lightning_expedite.load`.

    Raises:
        CheckpointError: It is missing, damaged or of an unknown layout; or its number of heads or its normalisation is
            known neither from a file beside it nor from its layout.
    """
    if convention is not None and convention not in CONVENTIONS:
        raise CheckpointError(f"convention {convention!r} is unknown; it must be one of {', '.join(CONVENTIONS)}")
    path, known = resolve_checkpoint(name, weights_folder), known_weights(str(name))
    file = find_weights(path)
    raw = read_state(file)
    layout = find_layout(raw, file)
    state = unify(raw, layout, file)
    config = read_config(file)
    if config is not None:
        stored = config.architecture
        read_architecture(state, layout, vars(stored), file, file.with_name(MODEL_CONFIG_FILE))  # only to compare
        convention = convention or config.convention
        return Checkpoint(file, layout.name, state, stored, convention, config.protocol, config.classes, config.reducer)
    variant = read_variant(file)
    convention = convention or variant.convention or layout.convention
    architecture = read_architecture(state, layout, vars(variant), file, file.with_name(VARIANT_FILE))
    protocol = known.protocol_in(convention) if known else _protocol(variant, layout, convention, file)
    data_set = known.data_set if known else DEMO if path == DEMO_FOLDER else variant.data_set
    return Checkpoint(file, layout.name, state, architecture, convention, protocol, data_set=data_set)


def read_protocol(
    name: str | Path, weights_folder: str | Path | None = None, convention: ConventionName | None = None
) -> Protocol:
    """Return a checkpoint's evaluation settings: from the known weights, ``config.json`` or `variant.yml`.

    Arguments and errors are those of `open_checkpoint`.
    """
    known = known_weights(str(name))
    if known is not None:
        return known.protocol_in(convention)
    file = find_weights(resolve_checkpoint(name, weights_folder))
    config = read_config(file)
    if config is not None:
        return config.protocol
    variant = read_variant(file)
    convention, layout = convention or variant.convention, None
    if convention is None or (variant.data_normalization or variant.normalization) is None:
        layout = find_layout(read_state(file), file)
    return _protocol(variant, layout, convention, file)


def _protocol(variant: VariantFile, layout: Layout | None, convention: ConventionName | None, file: Path) -> Protocol:
    """Return the settings of a `variant.yml`; mmsegmentation's own files have none and need none.

    The official evaluation (``segm/eval/miou.py``) ignores ``inference_kwargs``: its window is
    ``dataset_kwargs.crop_size``, its stride 32 pixels less, and its short side ``dataset_kwargs.image_size``.
    """
    path = file.with_name(VARIANT_FILE)
    normalization = variant.data_normalization or variant.normalization
    if layout is not None:
        normalization = normalization or ("vit" if layout.from_zoo else None)
        convention = convention or layout.convention
    if normalization is None:
        raise CheckpointError(f"{file}: the normalisation of its images is not known. {VARIANT_HINT.format(path)}")
    short, window, stride = variant.short_side, variant.window, variant.stride
    if convention == "official" and variant.data_crop is not None:
        short = min(variant.data_size) if variant.data_size else short
        window, stride = max(variant.data_crop), None
    stride = stride or (official_stride(window) if window else None)
    if stride is not None and stride < 1:
        raise CheckpointError(f"{path}: windows of {window} pixels are too small for the official stride, {stride}")
    return Protocol(short, variant.long_side, window, stride, normalization)
