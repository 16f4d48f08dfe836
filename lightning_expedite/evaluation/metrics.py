"""Scores of semantic segmentation from integer counts over a whole data set."""

from typing import Literal, TypedDict

import segmentation_models_pytorch as smp
import torch
from torch import Tensor
from torchmetrics import Metric

PIXELS_AT_ONCE = 1 << 20
"""Pixels that are counted at a time, since counting takes many times their memory. smp counts in float32, which holds
integers to 2^24 exactly."""

SUMMARY: tuple[Literal["mIoU", "aAcc", "mAcc"], ...] = ("mIoU", "aAcc", "mAcc")


class Scores(TypedDict):
    """Scores in percent and the pixel counts behind them; classes that do not occur have NaN."""

    mIoU: Tensor
    aAcc: Tensor
    mAcc: Tensor
    IoU: Tensor  # (K,)
    Acc: Tensor  # (K,)
    intersection: Tensor  # (K,) int64
    union: Tensor  # (K,) int64
    prediction: Tensor  # (K,) int64
    label: Tensor  # (K,) int64


def class_counts(prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """Count intersection, prediction and label pixels per image and class.

    Args:
        prediction: Class indices ``(B, H, W)``.
        target: Class indices ``(B, H, W)``; pixels of value ``ignore_index`` count nowhere.
        num_classes: Number of classes K.
        ignore_index: Label that counts nowhere.

    Returns:
        ``(B, 3, K)`` int64: intersection, prediction, label.

    Raises:
        ValueError: Shapes differ, values are not integers, or lie outside the classes.
    """
    _check_maps(prediction, target, num_classes, ignore_index)
    if torch.are_deterministic_algorithms_enabled():  # histograms have no deterministic CUDA kernel
        prediction, target = prediction.cpu(), target.cpu()
    bins = max(num_classes, 2)  # with a single one smp's histogram would count ignored pixels too
    rows = max(PIXELS_AT_ONCE // max(prediction.shape[2], 1), 1)
    total = torch.zeros(len(prediction), 3, num_classes, dtype=torch.int64)
    for band, band_target in zip(prediction.split(rows, dim=1), target.split(rows, dim=1), strict=True):
        hit, false, missed, _ = smp.metrics.get_stats(
            band.long(), band_target.long(), mode="multiclass", num_classes=bins, ignore_index=ignore_index
        )
        total += torch.stack((hit, hit + false, hit + missed), dim=1)[..., :num_classes].cpu()
    return total


def scores_of(counts: Tensor) -> Scores:
    """Compute `Scores` from counts ``(3, K)`` of intersection, prediction and label pixels.

    mIoU leaves out classes that occur in neither prediction nor label, mAcc those without labelled pixels
    (the convention of mmsegmentation).
    """
    intersection, prediction, label = counts
    union = prediction + label - intersection
    hits = intersection.double()
    iou, acc = 100 * hits / union, 100 * hits / label  # 0 / 0 is NaN: the class does not occur
    return Scores(
        mIoU=iou.nanmean(),
        aAcc=100 * hits.sum() / label.sum(),
        mAcc=acc.nanmean(),
        IoU=iou,
        Acc=acc,
        intersection=intersection,
        union=union,
        prediction=prediction,
        label=label,
    )


class SegmentationScores(Metric):
    """mIoU, aAcc and mAcc from pixel counts summed over all images and processes.

    Args:
        num_classes: Number of classes K.
        ignore_index: Label that counts nowhere; outside the classes.

    Raises:
        ValueError: ``ignore_index`` is a class.
    """

    counts: Tensor
    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        super().__init__()
        if 0 <= ignore_index < num_classes:
            raise ValueError(f"ignore_index={ignore_index} is one of the {num_classes} classes")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.add_state("counts", torch.zeros(3, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add integer maps ``(B, H, W)``; see `class_counts`."""
        self.add_counts(class_counts(prediction, target, self.num_classes, self.ignore_index).sum(dim=0))

    def add_counts(self, counts: Tensor) -> None:
        """Add counts ``(3, K)`` made before by `class_counts`."""
        self._update_count += 1  # as if by update(): torchmetrics warns of a metric that saw nothing
        self._computed = None
        self.counts += counts.to(self.counts.device)

    def compute(self) -> Scores:
        """Return the scores over everything added so far, on all processes; a single class's are scalars."""
        return scores_of(self.counts.cpu())


def _check_maps(prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int) -> None:
    if prediction.shape != target.shape or prediction.ndim != 3:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must both be (B, H, W)"
        )
    for name, values in (("prediction", prediction), ("target", target)):
        if values.is_floating_point() or values.is_complex():
            raise ValueError(f"{name} has dtype {values.dtype}; it must hold integer class indices")
        if not values.numel():
            continue
        outside = (values < 0) | (values >= num_classes)
        if name == "target":
            outside &= values != ignore_index
        if outside.any():
            value = values[outside][0].item()
            raise ValueError(f"{name} holds {value}, which is none of the classes 0 to {num_classes - 1}")
