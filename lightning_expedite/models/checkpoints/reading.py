"""From a name or a path to a checkpoint: its tensors under one set of names, and what is known about them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from ...errors import CheckpointError
from ...files import write_atomically
from ...protocol import Protocol
from ..segmenter.architecture import CONVENTIONS, Architecture, ConventionName
from ..zoo import DEMO, DEMO_FOLDER, KnownWeights, known_weights, resolve_checkpoint
from .files import as_float32, find_weights, read_state
from .layouts import Layout, find_layout, read_architecture, rename_keys, reshape_matrices
from .settings import (
    MODEL_CONFIG_FILE,
    VARIANT_FILE,
    VARIANT_HINT,
    Decoder,
    ModelConfig,
    Network,
    StoredReducer,
    VariantFile,
    config_beside,
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
    """Find and read a checkpoint; see `lightning_expedite.load`."""
    if convention is not None and convention not in CONVENTIONS:
        raise CheckpointError(f"convention {convention!r} is unknown; it must be one of {', '.join(CONVENTIONS)}")
    return read_checkpoint(resolve_checkpoint(name, weights_folder), convention, known_weights(str(name)))


def read_checkpoint(
    path: Path, convention: ConventionName | None = None, known: KnownWeights | None = None
) -> Checkpoint:
    """Read a checkpoint file, or the one in a folder, without building the model.

    Args:
        path: The file or folder.
        convention: The convention to evaluate in; by default the layout's own.
        known: Entry of the table of known weights, where the path was found by it.

    Raises:
        CheckpointError: It is missing, damaged or of an unknown layout; or its number of heads or its normalisation is
            known neither from a file beside it nor from its layout.
    """
    file = find_weights(path)
    raw = read_state(file)
    layout = find_layout(raw, file)
    state = as_float32(rename_keys(raw, layout, file), file)
    reshape_matrices(state, layout, file)
    config = config_beside(file)
    if config is not None:
        _require_agreement(config, state, layout, file)
        convention = convention or config.convention
        return Checkpoint(
            file, layout.name, state, config.architecture, convention, config.protocol, config.classes, config.reducer
        )
    variant = read_variant(file.with_name(VARIANT_FILE))
    convention = convention or variant.convention or layout.convention
    architecture = read_architecture(state, layout, variant.net_kwargs, file, file.with_name(VARIANT_FILE))
    protocol = known.protocol_in(convention) if known else _protocol(variant, layout, convention, file)
    data_set = known.data_set if known else DEMO if path == DEMO_FOLDER else variant.dataset_kwargs.dataset
    return Checkpoint(file, layout.name, state, architecture, convention, protocol, data_set=data_set)


def read_protocol(
    name: str | Path, weights_folder: str | Path | None = None, convention: ConventionName | None = None
) -> Protocol:
    """Return a checkpoint's evaluation settings: from the known weights, ``config.json`` or `variant.yml`.

    Args:
        name: See `lightning_expedite.load`.
        weights_folder: See `lightning_expedite.load`.
        convention: The convention to evaluate in; by default the layout's own.

    Raises:
        CheckpointError: See `read_checkpoint`.
    """
    known = known_weights(str(name))
    if known is not None:
        return known.protocol_in(convention)
    file = find_weights(resolve_checkpoint(name, weights_folder))
    config = config_beside(file)
    if config is not None:
        return config.protocol
    variant = read_variant(file.with_name(VARIANT_FILE))
    layout = None
    if variant.normalization is None or (convention or variant.convention) is None:
        layout = find_layout(read_state(file), file)
    return _protocol(variant, layout, convention, file)


def write_variant(
    folder: Path,
    architecture: Architecture,
    convention: ConventionName,
    protocol: Protocol,
    official: Protocol | None = None,
) -> None:
    """Write a `variant.yml`, which describes a Segmenter in the terms of the official code.

    Args:
        folder: Where to write.
        architecture: Sizes of the model.
        convention: The convention to load it with by default.
        protocol: Its evaluation settings.
        official: Its settings in the official convention, where they differ.
    """
    decoder: dict[str, Any] = {"name": architecture.decoder}
    if architecture.decoder == "mask_transformer":
        decoder |= {"n_heads": architecture.decoder_heads, "n_layers": architecture.decoder_depth}
    content: dict[str, Any] = {
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
        "convention": convention,
    }
    if official is not None and official != protocol:
        content["dataset_kwargs"] = {"crop_size": official.window, "image_size": official.short_side}
    write_atomically(folder / VARIANT_FILE, yaml.safe_dump(content).encode())


def _protocol(variant: VariantFile, layout: Layout | None, convention: ConventionName | None, file: Path) -> Protocol:
    """Return the settings of a `variant.yml`; mmsegmentation's own files have none and need none."""
    normalization = variant.normalization or ("vit" if layout is not None and layout.from_zoo else None)
    if normalization is None:
        raise CheckpointError(
            f"{file}: the normalisation of its images is not known. {VARIANT_HINT.format(file.with_name(VARIANT_FILE))}"
        )
    chosen = convention or variant.convention or (layout.convention if layout is not None else "mmseg")
    return variant.protocol(chosen, normalization, file.with_name(VARIANT_FILE))


def _require_agreement(config: ModelConfig, state: dict[str, Tensor], layout: Layout, file: Path) -> None:
    """Raise `CheckpointError` where tensors contradict a ``config.json``, or are missing."""
    stored = config.architecture
    network = Network(image_size=stored.image_size, n_heads=stored.heads, decoder=Decoder(n_heads=stored.decoder_heads))
    found = read_architecture(state, layout, network, file, file.with_name(MODEL_CONFIG_FILE))
    names = ["patch_size", "width", "depth", "num_classes", "decoder", "class_token", "distilled"]
    if found.decoder == "mask_transformer":
        names += ["decoder_width", "decoder_depth"]
    for name in names:
        if getattr(stored, name) != getattr(found, name):
            place = f"{file.with_name(MODEL_CONFIG_FILE)}: architecture: {name}"
            raise CheckpointError(
                f"{place} is {getattr(stored, name)!r}, but the tensors in {file.name} say {getattr(found, name)!r}"
            )
