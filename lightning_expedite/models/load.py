"""The one way from a name or a path to a model."""

from .segmenter.checkpoint import load_segmenter

load = load_segmenter
