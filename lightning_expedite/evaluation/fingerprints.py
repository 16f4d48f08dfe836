"""What a run is of: settings, weights, data and versions, by which an interrupted run is known again."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..data.samples import ListedImage
from ..errors import CheckpointError
from ..files import sha256_of
from ..models.segmenter.config import CONFIG_FILE, WEIGHTS_FILE
from ..models.segmenter.weights import CHECKPOINT_FILE, VARIANT_FILE
from ..version import __version__

# Settings that change neither labels nor counts: how the work is divided, and what is shown of it.
LIMITS = ("limit_test_batches", "limit_predict_batches", "fast_dev_run")
_TRAINER_SETTINGS = ("precision", "plugins", "deterministic", *LIMITS)
_DIGITS = 32  # of an image's checksum: 128 bits, of which thousands stand in a journal
_DIVISION = ("num_workers", "batch_size")
# Fewer windows at once is what helps where memory does not suffice; see docs/concepts/determinism.md.
_MODEL_DIVISION = ("weights_folder", "window_batch_size")
_MODEL_FILES = (CHECKPOINT_FILE, VARIANT_FILE, CONFIG_FILE, WEIGHTS_FILE)


def fingerprint(
    command: str, config: Mapping[str, Any], device_type: str, checkpoint: Path, contents: Sequence[str]
) -> dict[str, Any]:
    """Give what identifies a run, in JSON's types: two with the same one label the same images in the same way.

    Args:
        command: The subcommand.
        config: Its resolved settings.
        device_type: Type of the device, ``cpu`` or ``cuda``.
        checkpoint: File or folder of the weights.
        contents: A checksum of each image, see `image_fingerprints`.

    Raises:
        CheckpointError: The weights cannot be read.
    """
    return {
        "command": command,
        "settings": relevant_settings(config),
        "device": device_type,
        "weights": weights_fingerprint(checkpoint),
        "data": {"images": len(contents), "sha256": hashlib.sha256("".join(contents).encode()).hexdigest()},
        "versions": {"lightning_expedite": __version__, "torch": torch.__version__},
    }


def relevant_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a resolved config what changes no result."""
    settings = {name: value for name, value in config.items() if name != "trainer"}
    trainer = config["trainer"]
    data = dict(config["data"])
    data["init_args"] = {name: value for name, value in data.get("init_args", {}).items() if name not in _DIVISION}
    model = {name: value for name, value in config["model"].items() if name not in _MODEL_DIVISION}
    kept = {name: trainer[name] for name in _TRAINER_SETTINGS if name in trainer}
    return {
        **settings,
        "trainer": {name: None if name in LIMITS and is_all(value) else value for name, value in kept.items()},
        "data": data,
        "model": model,
    }


def is_all(limit: object) -> bool:
    """Tell whether a trainer's limit lets all batches through: Lightning takes 1 for a number, 1.0 for a share."""
    return limit is None or limit is False or (isinstance(limit, float) and limit == 1.0)


def weights_fingerprint(checkpoint: Path) -> dict[str, str]:
    """Give the SHA-256 of each file that a checkpoint is read from."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    files = [folder / name for name in _MODEL_FILES]
    if not checkpoint.is_dir():
        files = [checkpoint, *(file for file in files if file.name in (VARIANT_FILE, CONFIG_FILE))]
    found = {}
    for file in files:
        if file.is_file():
            try:
                found[file.name] = sha256_of(file)
            except OSError as error:
                raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
    return found


def image_fingerprints(images: Sequence[ListedImage]) -> list[str]:
    """Return a checksum of each image's name and file sizes."""
    return [hashlib.sha256(f"{name}\n{sizes}".encode()).hexdigest()[:_DIGITS] for name, sizes in images]
