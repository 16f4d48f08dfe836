"""Dense-prediction models on a ViT encoder, and loading them from every checkpoint layout."""

from .load import load
from .segmenter import Segmenter, load_segmenter, read_protocol, with_reducer
from .segmenter.weights import known_weights, resolve_checkpoint

__all__ = [
    "Segmenter",
    "known_weights",
    "load",
    "load_segmenter",
    "read_protocol",
    "resolve_checkpoint",
    "with_reducer",
]
