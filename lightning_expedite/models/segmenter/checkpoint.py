"""Reading Segmenter checkpoints of every layout, and writing them as safetensors."""

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
import yaml
from torch import Tensor

from ...errors import CheckpointError, OutputError
from ...files import write_atomically
from ...protocol import Protocol
from ...reducers.base import Reducer
from .architecture import CONVENTIONS, Architecture, ConventionName
from .archives import CHECKSUM, check_archive, check_sum, checksum, require_openable
from .config import WEIGHTS_FILE, config_beside, require_agreement
from .layouts import recognise, rename
from .model import Segmenter
from .sizes import architecture_of
from .soundness import require_finite
from .stored_reducer import StoredReducer
from .variant import data_set_of, is_there, protocol_of, read_variant, variant_of
from .weights import CHECKPOINT_FILE, DEMO, DEMO_FOLDER, VARIANT_FILE, known_weights, resolve_checkpoint


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read from disk, under this project's names."""

    path: Path
    layout: str
    state: dict[str, Tensor]
    architecture: Architecture
    convention: ConventionName  # the layout's own
    protocol: Protocol  # of its config.json or variant.yml
    classes: tuple[str, ...] | None = None  # names in the order of the logits, where a config.json tells them
    reducer: StoredReducer | None = None  # of its config.json
    data_set: str | None = None  # that it was trained on, by its variant.yml


def load_segmenter(
    checkpoint: str | Path,
    reducer: Reducer | None = None,
    *,
    convention: ConventionName | None = None,
    weights_folder: str | Path | None = None,
    pack_weights: bool | None = None,
) -> Segmenter:
    """Load a Segmenter for evaluation.

    Args:
        checkpoint: A file or folder of any known layout, the name of known weights, or ``hf://owner/name``.
        reducer: Token reducer; ``None`` runs all tokens through all layers, whatever a ``config.json`` names.
        convention: ``"official"`` or ``"mmseg"``; by default the layout's own.
        weights_folder: Folder of downloaded weights; see `lightning_expedite.models.segmenter.weights`.
        pack_weights: Deprecated and ignored.

    Returns:
        The model in eval mode: normalised images ``(B, 3, H, W)`` to logits ``(B, K, H, W)``. How its weights are to be
        evaluated stands in ``protocol``, the name of their data set, where it is known, in ``data_set``.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or of no known layout.
        ReducerError: The reducer cannot apply to this model.
    """
    if convention is not None and convention not in CONVENTIONS:
        raise CheckpointError(f"convention {convention!r} is unknown; it must be one of {', '.join(CONVENTIONS)}")
    if pack_weights is not None:
        warn_pack_weights()
    return build_segmenter(open_checkpoint(checkpoint, weights_folder), reducer, convention)


def warn_pack_weights() -> None:
    """Warn about an option of earlier versions."""
    warnings.warn("pack_weights is deprecated and has no effect: leave it out", FutureWarning, stacklevel=3)


def open_checkpoint(checkpoint: str | Path, weights_folder: str | Path | None = None) -> Checkpoint:
    """Find and read a checkpoint, with what is known of known weights; see `load_segmenter`."""
    path, known = resolve_checkpoint(checkpoint, weights_folder), known_weights(str(checkpoint))
    found = read_checkpoint(path)
    if known:
        return replace(found, protocol=known.protocol, data_set=known.data_set)
    return replace(found, data_set=DEMO) if path == DEMO_FOLDER else found


def build_segmenter(
    checkpoint: Checkpoint,
    reducer: Reducer | None = None,
    convention: ConventionName | None = None,
) -> Segmenter:
    """Make the eval-mode model of a checkpoint; see `load_segmenter`."""
    with torch.device("meta"):  # nothing is initialised that the checkpoint replaces
        model = Segmenter(checkpoint.architecture, convention or checkpoint.convention, reducer)
    expected = model.state_dict()
    missing = sorted(expected.keys() - checkpoint.state.keys())
    extra = sorted(checkpoint.state.keys() - expected.keys())
    if missing or extra:
        raise CheckpointError(
            f"{checkpoint.path}: not a whole {checkpoint.layout} Segmenter; "
            f"missing: {_some(missing)}; not understood: {_some(extra)}"
        )
    for key, value in checkpoint.state.items():
        if value.shape != expected[key].shape:
            raise CheckpointError(
                f"{checkpoint.path}: {key} has shape {tuple(value.shape)}, the other tensors "
                f"ask for {tuple(expected[key].shape)}"
            )
    weights = {key: value.float() for key, value in checkpoint.state.items()}
    require_finite(weights, str(checkpoint.path))
    model.load_state_dict(weights, assign=True)
    model.protocol, model.classes, model.data_set = checkpoint.protocol, checkpoint.classes, checkpoint.data_set
    return model.eval()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file, or the one in a folder, without building the model.

    Raises:
        CheckpointError: It is missing, damaged or of no known layout.
    """
    path = find_weights(path)
    raw = _read_state(path)
    layout = recognise(raw, str(path))
    state = rename(raw, layout, str(path))
    config = config_beside(path)
    if config is not None:
        require_agreement(config, state, path)
        settings = (config.architecture, config.convention, config.protocol, config.classes, config.reducer)
        return Checkpoint(path, layout.name, state, *settings)
    variant = read_variant(path.parent / VARIANT_FILE)
    convention = variant.choice("convention", tuple(CONVENTIONS)) or layout.convention
    architecture = architecture_of(state, variant, str(path))
    return Checkpoint(
        path, layout.name, state, architecture, convention, protocol_of(variant), data_set=data_set_of(variant)
    )


def read_protocol(checkpoint: str | Path, weights_folder: str | Path | None = None) -> Protocol:
    """Give a checkpoint's evaluation settings: the known weights', its ``config.json``'s or its `variant.yml`'s."""
    known = known_weights(str(checkpoint))
    if known is not None:
        return known.protocol
    path = find_weights(resolve_checkpoint(checkpoint, weights_folder))
    config = config_beside(path)
    if config is not None:
        return config.protocol
    return protocol_of(read_variant(path.parent / VARIANT_FILE))


def find_weights(path: Path) -> Path:
    """Give the weights file that a path names: itself, or the one in the folder."""
    if path.is_file():
        return path
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; give a checkpoint file, its folder or a known name")
    if not path.is_dir():
        raise CheckpointError(f"{path} is neither a file nor a folder; give a checkpoint file or its folder")
    for name in (WEIGHTS_FILE, CHECKPOINT_FILE):
        if is_there(path / name):
            return path / name
    raise CheckpointError(f"{path} is a folder without {WEIGHTS_FILE} or {CHECKPOINT_FILE}")


def save_segmenter(
    model: Segmenter,
    folder: Path,
    protocol: Protocol | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write ``model.safetensors`` and ``variant.yml``, from which `load_segmenter` reads.

    Args:
        model: The model; its reducer is not stored.
        folder: Where to write; made where missing.
        protocol: Evaluation settings to store.
        dtype: Floating-point type of the stored weights; the model's own by default.

    Returns:
        Path of the weights file.
    """
    variant = variant_of(model.architecture, protocol or Protocol())
    variant["convention"] = model.convention.name
    path = write_weights(model, folder, dtype)
    write_atomically(folder / VARIANT_FILE, yaml.safe_dump(variant).encode())
    return path


def write_weights(model: Segmenter, folder: Path, dtype: torch.dtype | None = None) -> Path:
    """Write ``model.safetensors`` into a folder, which is made where missing; gives its path."""
    state = {key: value.detach().to("cpu", dtype).contiguous() for key, value in model.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made a folder: {error.strerror}") from error
    content = safetensors.torch.save(state, {CHECKSUM: checksum(state)})
    write_atomically(folder / WEIGHTS_FILE, content)
    return folder / WEIGHTS_FILE


def convert_checkpoint(
    source: str | Path,
    folder: Path,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
) -> Path:
    """Convert a checkpoint of any layout to ``model.safetensors`` and ``variant.yml`` in ``folder``."""
    checkpoint = open_checkpoint(source)
    model = build_segmenter(checkpoint)
    return save_segmenter(model, folder, checkpoint.protocol, getattr(torch, dtype) if dtype else None)


def _read_state(path: Path) -> Mapping[str, Tensor]:
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    named = content.items() if isinstance(content, Mapping) else ()
    tensors = {key: value for key, value in named if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors under 'model', 'state_dict' or at its top")
    return tensors


def _read_safetensors(path: Path) -> Any:
    require_openable(path)
    try:
        with safetensors.safe_open(path, "pt") as opened:
            metadata = opened.metadata()
        state = safetensors.torch.load_file(path)
    except Exception as error:  # the reader has errors of its own, and PyTorch's on types it does not know
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}); fetch it again") from error
    check_sum(state, metadata, path)
    return state


def _read_pickle(path: Path) -> Any:
    require_openable(path)
    check_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged, or holds objects other than tensors, which are never executed ({_first_line(error)})"
        ) from error
    except Exception as error:  # damaged files make the loader fail in many ways
        raise CheckpointError(
            f"{path} is damaged or no PyTorch checkpoint ({_first_line(error)}); fetch it again"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "") if keys else "none"
