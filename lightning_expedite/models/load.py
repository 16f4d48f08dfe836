"""From a name or a path to a model, and from a model to `variant.yml`'s layout."""

import warnings
from pathlib import Path
from typing import Any, Literal

import torch

from ..errors import checks_arguments
from ..protocol import Protocol
from ..reducers.base import Reducer
from .base import warn_pack_weights
from .checkpoints.files import write_weights
from .checkpoints.reading import open_checkpoint, read_protocol
from .checkpoints.settings import write_variant
from .segmenter.architecture import ConventionName
from .segmenter.model import Segmenter


@checks_arguments
def load(
    name_or_path: str | Path,
    reducer: Reducer | None = None,
    *,
    convention: ConventionName | None = None,
    weights_folder: str | Path | None = None,
    pack_weights: bool | None = None,
) -> Segmenter:
    """Load a model for evaluation.

    Args:
        name_or_path: ``"demo"`` (bundled), a file or folder of any known layout, the name of known weights, or
            ``hf://owner/name``.
        reducer: Token reducer; ``None`` for the baseline, whatever a ``config.json`` names.
        convention: ``"official"`` or ``"mmseg"``; by default the layout's own.
        weights_folder: Folder of downloaded weights; by default ``$LIGHTNING_EXPEDITE_WEIGHTS`` or the user's cache.
        pack_weights: Deprecated and ignored.

    Returns:
        The model in eval mode: normalised images ``(B, 3, H, W)`` to logits ``(B, K, H, W)``. Its ``protocol`` says
        how the weights are to be evaluated.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or of an unknown layout.
        ReducerError: The reducer cannot apply to this model.
    """
    warn_pack_weights(pack_weights)
    return Segmenter.from_checkpoint(open_checkpoint(name_or_path, weights_folder, convention), reducer)


def load_segmenter(checkpoint: str | Path, reducer: Reducer | None = None, **options: Any) -> Segmenter:
    """Load a model; the deprecated name of `load`."""
    warnings.warn("load_segmenter is deprecated: write load", FutureWarning, stacklevel=2)
    return load(checkpoint, reducer, **options)


def save_segmenter(
    model: Segmenter,
    folder: Path,
    protocol: Protocol | None = None,
    dtype: torch.dtype | None = None,
    official: Protocol | None = None,
) -> Path:
    """Write ``model.safetensors`` and `variant.yml`, from which `load` reads, and return the path of the weights.

    Args:
        model: The model; its reducer is not stored.
        folder: Where to write; created where missing.
        protocol: Evaluation settings to store.
        dtype: Floating-point type of the stored weights; the model's own by default.
        official: Evaluation settings in the official convention, where they differ.

    Raises:
        CheckpointError: A weight is beyond the range of ``dtype``.
        OutputError: The folder cannot be written to.
    """
    path = write_weights(model.state_dict(), folder, dtype)
    write_variant(folder, model.architecture, model.convention.name, protocol or Protocol(), official)
    return path


def convert_checkpoint(
    source: str | Path,
    folder: Path,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
) -> Path:
    """Convert a checkpoint that `load` reads as `save_segmenter` does, in float32 by default.

    Raises:
        CheckpointError: The source cannot be loaded, or a weight is beyond the range of ``dtype``.
        OutputError: The folder cannot be written to.
    """
    model = load(source)
    protocols = [read_protocol(source, convention=convention) for convention in ("mmseg", "official")]
    return save_segmenter(model, folder, protocols[0], getattr(torch, dtype) if dtype else None, protocols[1])
