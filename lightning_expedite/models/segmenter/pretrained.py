"""Models as folders that stand for themselves: stored, loaded again, and sent to the Hugging Face hub."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from ...errors import CheckpointError, OutputError
from ...files import write_atomically
from ...protocol import Protocol
from ...reducers.base import Reducer
from .architecture import ConventionName
from .card import model_card
from .checkpoint import build_segmenter, open_checkpoint, warn_pack_weights, write_weights
from .config import CONFIG_FILE, WEIGHTS_FILE, ModelConfig
from .hub import CARD_FILE, PREFIX, HubReference, hub_reference, push
from .model import Segmenter
from .stored_reducer import make_reducer, store_reducer
from .weights import is_here

ReducerChoice = Reducer | type[Reducer] | None | Literal["stored"]


def save_pretrained(
    model: Segmenter,
    folder: str | Path,
    classes: Sequence[str] | None = None,
    protocol: Protocol | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Path:
    """Store a model; see `Segmenter.save_pretrained`."""
    folder = Path(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if (folder / name).exists() and not overwrite:
            raise OutputError(f"{folder / name} exists already; give overwrite=True or another folder")
    names = model.classes if classes is None else tuple(classes)
    if names is not None and len(names) != model.num_classes:
        raise CheckpointError(f"classes has {len(names)} names, but the model tells {model.num_classes} classes apart")
    reducer = None if model.reducer is None else store_reducer(model.reducer)
    config = ModelConfig(model.architecture, model.convention.name, protocol or model.protocol, names, reducer)
    write_weights(model, folder, dtype)
    write_atomically(folder / CONFIG_FILE, config.to_json().encode())
    if not (folder / CARD_FILE).exists():  # one that is there was written by somebody
        write_atomically(folder / CARD_FILE, model_card(config).encode())
    return folder


def from_pretrained(
    name_or_folder: str | Path,
    reducer: ReducerChoice = "stored",
    convention: ConventionName | None = None,
    revision: str | None = None,
    weights_folder: str | Path | None = None,
    pack_weights: bool | None = None,
) -> Segmenter:
    """Load a model; see `Segmenter.from_pretrained`."""
    if pack_weights is not None:
        warn_pack_weights()
    checkpoint = open_checkpoint(_address(name_or_folder, revision), weights_folder)
    if reducer == "stored" or isinstance(reducer, type):
        given = (reducer,) if isinstance(reducer, type) else ()
        reducer = make_reducer(checkpoint.reducer, given) if checkpoint.reducer is not None else None
    return build_segmenter(checkpoint, reducer, convention)


def push_to_hub(
    model: Segmenter,
    repository: str,
    private: bool | None = None,
    revision: str | None = None,
    message: str = "Segmenter stored with lightning_expedite",
    classes: Sequence[str] | None = None,
    protocol: Protocol | None = None,
    dtype: torch.dtype | None = None,
) -> str:
    """Send a model to the hub; see `Segmenter.push_to_hub`."""
    reference = hub_reference(repository)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, classes, protocol, dtype)
        return push(Path(folder), reference.repository, private, revision or reference.revision, message)


def _address(name_or_folder: str | Path, revision: str | None) -> str:
    """Name what `resolve_checkpoint` finds: names of this library come first, then paths, then the hub's."""
    name = str(name_or_folder)
    if isinstance(name_or_folder, str) and (name.startswith(PREFIX) or not is_here(name)):
        reference = hub_reference(name)
        return str(HubReference(reference.repository, revision or reference.revision))
    if revision is not None:
        raise CheckpointError(f"revision is {revision!r}, but {name} is no model of the hub: leave revision out")
    return name
