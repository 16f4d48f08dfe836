"""Reading Segmenter checkpoints of every layout, and writing them as safetensors."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
import yaml
from torch import Tensor

from ..errors import CheckpointError
from ..files import write_atomically
from ..protocol import Protocol
from ..reducers.base import Reducer
from .architecture import CONVENTIONS, Architecture, ConventionName
from .layouts import recognise, rename
from .model import Segmenter
from .sizes import architecture_of
from .variant import protocol_of, read_variant, variant_of
from .weights import CHECKPOINT_FILE, VARIANT_FILE, known_weights, resolve_checkpoint

WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read from disk, under this project's names."""

    path: Path
    layout: str
    state: dict[str, Tensor]
    architecture: Architecture
    convention: ConventionName  # the layout's own
    protocol: Protocol  # of its variant.yml


def load_segmenter(
    checkpoint: str | Path,
    *,
    reducer: Reducer | None = None,
    convention: ConventionName | None = None,
    weights_folder: str | Path | None = None,
) -> Segmenter:
    """Load a Segmenter for evaluation.

    Args:
        checkpoint: A file or folder of any known layout, or the name of known weights.
        reducer: Token reducer; ``None`` runs all tokens through all layers.
        convention: ``"official"`` or ``"mmseg"``; by default the layout's own.
        weights_folder: Folder of downloaded weights; see `lightning_expedite.segmenter.weights`.

    Returns:
        The model in eval mode: normalised images ``(B, 3, H, W)`` to logits ``(B, K, H, W)``.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or of no known layout.
        ReducerError: The reducer cannot apply to this model.
    """
    if convention is not None and convention not in CONVENTIONS:
        raise CheckpointError(f"convention {convention!r} is unknown; it must be one of {', '.join(CONVENTIONS)}")
    path = resolve_checkpoint(checkpoint, weights_folder)
    return build_segmenter(read_checkpoint(path), reducer, convention)


def build_segmenter(
    checkpoint: Checkpoint, reducer: Reducer | None = None, convention: ConventionName | None = None
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
    model.load_state_dict({key: value.float() for key, value in checkpoint.state.items()}, assign=True)
    return model.eval()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file, or the one in a folder, without building the model.

    Raises:
        CheckpointError: It is missing, damaged or of no known layout.
    """
    path = find_weights(path)
    raw = _read_state(path)
    layout = recognise(raw, str(path))
    state = rename(raw, layout)
    variant = read_variant(path.parent / VARIANT_FILE)
    convention = variant.choice("convention", tuple(CONVENTIONS)) or layout.convention
    architecture = architecture_of(state, variant, str(path))
    return Checkpoint(path, layout.name, state, architecture, convention, protocol_of(variant))


def read_protocol(checkpoint: str | Path, weights_folder: str | Path | None = None) -> Protocol:
    """Give a checkpoint's evaluation settings: those of the known weights, else its `variant.yml`'s."""
    known = known_weights(str(checkpoint))
    if known is not None:
        return known.protocol
    path = find_weights(resolve_checkpoint(checkpoint, weights_folder))
    return protocol_of(read_variant(path.parent / VARIANT_FILE))


def find_weights(path: Path) -> Path:
    """Give the weights file that a path names: itself, or the one in the folder."""
    if path.is_file():
        return path
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; give a checkpoint file, its folder or a known name")
    for name in (WEIGHTS_FILE, CHECKPOINT_FILE):
        if (path / name).is_file():
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
    state = {key: value.detach().to("cpu", dtype).contiguous() for key, value in model.state_dict().items()}
    variant = variant_of(model.architecture, protocol or Protocol())
    variant["convention"] = model.convention.name
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / VARIANT_FILE, yaml.safe_dump(variant).encode())
    write_atomically(folder / WEIGHTS_FILE, safetensors.torch.save(state))
    return folder / WEIGHTS_FILE


def convert_checkpoint(
    source: str | Path,
    folder: Path,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
) -> Path:
    """Convert a checkpoint of any layout to ``model.safetensors`` and ``variant.yml`` in ``folder``."""
    checkpoint, known = read_checkpoint(resolve_checkpoint(source)), known_weights(str(source))
    protocol = known.protocol if known else checkpoint.protocol
    return save_segmenter(build_segmenter(checkpoint), folder, protocol, getattr(torch, dtype) if dtype else None)


def _read_state(path: Path) -> Mapping[str, Tensor]:
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = isinstance(content, Mapping) and {key: v for key, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors under 'model', 'state_dict' or at its top")
    return tensors


def _read_safetensors(path: Path) -> Any:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}); fetch it again") from error


def _read_pickle(path: Path) -> Any:
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
