"""Evaluation: sliding windows, scores and the LightningModule that wires them."""

from .inference import Prediction, SlidingWindow
from .module import ImageResult, SegmenterModule

__all__ = ["ImageResult", "Prediction", "SegmenterModule", "SlidingWindow"]
