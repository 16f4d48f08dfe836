"""From an image to its label map: windows, averaging, upsampling and argmax, with bounded memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..segmenter.architecture import ConventionName
from ..segmenter.model import Segmenter
from .upsampling import interpolate_rows
from .windows import WindowPlan, plan_windows, size_for_windows

BAND_BYTES = 64 << 20  # upper bound of the logits held at the final size


class Prediction(NamedTuple):
    """Labels of one image, and how many of its windows the reducer left unreduced."""

    labels: Tensor  # (H, W) int64
    windows: int
    windows_unreduced: int


@dataclass(frozen=True)
class WindowLogits:
    """Logits of an image's windows at patch resolution; averaged over windows only where rows are asked for."""

    plan: WindowPlan
    logits: Tensor  # (windows, K, rows, columns)
    upsampled: tuple[int, int]  # size of a window's logits before they are cut to the window
    windows_unreduced: int

    def rows(self, start: int, stop: int) -> Tensor:
        """Give the averaged logits ``(K, stop - start, W)`` of some rows of the image, in float32 or wider."""
        height, width = self.plan.window
        precision = torch.promote_types(self.logits.dtype, torch.float32)
        total = self.logits.new_zeros(self.logits.shape[1], stop - start, self.plan.image[1], dtype=precision)
        for (top, left), logits in zip(self.plan.origins, self.logits, strict=True):
            first, last = max(start, top), min(stop, top + height)
            if first < last:
                part = self._window_rows(logits, first - top, last - top)
                total[:, first - start : last - start, left : left + width] += part[..., :width]
        rows, columns = self.plan.cover
        return total.div_((rows[start:stop, None] * columns).to(total.device))

    def _window_rows(self, logits: Tensor, start: int, stop: int) -> Tensor:
        size = (logits.shape[1], logits.shape[2])
        return interpolate_rows(lambda a, b: logits[:, a:b], size, self.upsampled, start, stop, logits.device)


@dataclass(frozen=True)
class SlidingWindow:
    """Sliding-window inference.

    Args:
        window: Side of a window in pixels.
        stride: Distance of windows in pixels.
        batch_size: Windows of one image that go through the model at once.
        placement: Whose rule places the windows.
    """

    window: int
    stride: int
    batch_size: int = 4
    placement: ConventionName = "mmseg"

    def predict(self, model: Segmenter, views: Sequence[tuple[Tensor, bool]], size: tuple[int, int]) -> Prediction:
        """Label an image.

        Args:
            model: The model.
            views: Normalised images ``(3, h, w)``, each with whether it is mirrored; several (scales, mirrors)
                are averaged after softmax.
            size: Height and width of the labels.

        Returns:
            Labels at ``size``. Windows of different images never share a batch, so that the result does not
            depend on the order of images or the number of processes.
        """
        logits = [(self.window_logits(model, image), mirrored) for image, mirrored in views]
        labels = label_map(logits, size)
        return Prediction(
            labels,
            sum(len(part.logits) for part, _ in logits),
            sum(part.windows_unreduced for part, _ in logits),
        )

    def window_logits(self, model: Segmenter, image: Tensor) -> WindowLogits:
        """Run the model on all windows of a normalised image ``(3, h, w)``."""
        size = (image.shape[1], image.shape[2])
        enlarged = size_for_windows(size, self.window, self.placement)
        if enlarged != size:
            image = F.interpolate(image[None], enlarged, mode="bilinear")[0]
        plan = plan_windows(enlarged, self.window, self.stride, self.placement)
        height, width = plan.window
        crops = torch.stack([image[:, top : top + height, left : left + width] for top, left in plan.origins])
        parts, unreduced = [], 0
        for batch in crops.split(self.batch_size):
            logits, reduction = model.segment_patches(batch)
            parts.append(logits)
            if model.reducer is not None:
                unreduced += _count(reduction.nothing_reduced(), len(batch))
        return WindowLogits(plan, torch.cat(parts), model.upsampled_size(height, width), unreduced)


def _count(flags: bool | Tensor, batch: int) -> int:
    return int(flags.sum()) if isinstance(flags, Tensor) else batch * int(flags)


def label_map(views: Sequence[tuple[WindowLogits, bool]], size: tuple[int, int]) -> Tensor:
    """Turn the logits of an image's views into labels ``(H, W)``, a band of rows at a time."""
    first = views[0][0]
    band = max(BAND_BYTES // (4 * first.logits.shape[1] * size[1]), 1)
    labels = torch.empty(size, dtype=torch.int64, device=first.logits.device)
    for start in range(0, size[0], band):
        stop = min(start + band, size[0])
        labels[start:stop] = _band_scores(views, size, start, stop).argmax(dim=0)
    return labels


def _band_scores(views: Sequence[tuple[WindowLogits, bool]], size: tuple[int, int], start: int, stop: int) -> Tensor:
    """Scores ``(K, stop - start, W)`` of some rows: logits of a single view, else averaged probabilities."""
    total: Tensor | None = None
    for view, mirrored in views:
        scores = interpolate_rows(view.rows, view.plan.image, size, start, stop, view.logits.device)
        if len(views) == 1 and not mirrored:
            return scores
        scores = scores.softmax(dim=0)
        if mirrored:
            scores = scores.flip(-1)
        total = scores if total is None else total.add_(scores)
    assert total is not None, "an image has at least one view"
    return total
