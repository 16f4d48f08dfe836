"""Names until their users import them from `comparison`."""

from .comparison import ImageCounts, mean_iou

__all__ = ["ImageCounts", "mean_iou"]
