"""Segmenter: the model, its checkpoints and where weights come from."""

from .architecture import CONVENTIONS, Architecture, Convention, ConventionName
from .checkpoint import (
    Checkpoint,
    build_segmenter,
    convert_checkpoint,
    load_segmenter,
    read_checkpoint,
    read_protocol,
    save_segmenter,
)
from .model import Segmentation, Segmenter, with_reducer

__all__ = [
    "CONVENTIONS",
    "Architecture",
    "Checkpoint",
    "Convention",
    "ConventionName",
    "Segmentation",
    "Segmenter",
    "build_segmenter",
    "convert_checkpoint",
    "load_segmenter",
    "read_checkpoint",
    "read_protocol",
    "save_segmenter",
    "with_reducer",
]
