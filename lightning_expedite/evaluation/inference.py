"""From an image to its label map: windows, averaging, upsampling and argmax, with bounded memory."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.segmenter.architecture import ConventionName
from ..models.segmenter.model import Segmenter
from ..regions import region
from .upsampling import interpolate_rows
from .windows import WindowPlan, count_windows, plan_windows, size_for_windows

BAND_BYTES = 8 << 20  # upper bound of the logits held at the final size: so that they stay in a processor's caches
GPU_BANDS = 32  # as much more on a GPU, where few large kernels are faster

StageContext = Callable[[str], AbstractContextManager[object]]
"""Context-manager factory, called with the stage name: ``windows``, ``upsample + argmax`` or ``score``."""

Views = Sequence[tuple[Tensor, bool]]
"""Normalised images ``(3, h, w)``, each with whether it is mirrored."""

WindowForward = Callable[[Segmenter, Tensor], tuple[Tensor, bool | Tensor]]
"""Runs the model on windows ``(B, 3, h, w)``; returns logits ``(B, K, rows, columns)``, and which windows were not
reduced: one ``bool`` for all, or a boolean tensor ``(B,)``."""


def run_windows(model: Segmenter, windows: Tensor) -> tuple[Tensor, bool | Tensor]:
    """Run the model on windows without compiling it; see `WindowForward`."""
    logits, reduction = model.segment_patches(windows)
    return logits, model.reducer is not None and reduction.is_identity()


class Prediction(NamedTuple):
    """Predicted labels of one image, and how many of its windows the reducer left unchanged."""

    labels: Tensor  # (H, W) int64
    windows: int
    unreduced: int | Tensor
    finite: Tensor  # boolean, on the device: whether all logits are finite; otherwise labels mean nothing

    @property
    def windows_unreduced(self) -> int:
        """Number of windows that the reducer left unchanged; reading it waits for a GPU that counted them."""
        return int(self.unreduced)


@dataclass(frozen=True)
class WindowLogits:
    """Logits of an image's windows at patch resolution, averaged over windows when rows are requested."""

    plan: WindowPlan
    logits: Tensor  # (windows, K, rows, columns)
    upsampled: tuple[int, int]  # size of a window's logits before they are cut to the window
    unreduced: int | Tensor  # number of windows, on the device where that depends on the images

    def rows(self, start: int, stop: int) -> Tensor:
        """Return the averaged logits ``(K, stop - start, W)`` of rows of the image, in float32 or wider."""
        height, width = self.plan.window
        precision = torch.promote_types(self.logits.dtype, torch.float32)
        total = self.logits.new_zeros(self.logits.shape[1], stop - start, self.plan.image[1], dtype=precision)
        for (top, left), logits in zip(self.plan.origins, self.logits, strict=True):
            first, last = max(start, top), min(stop, top + height)
            if first < last:
                part = self._window_rows(logits, first - top, last - top)
                total[:, first - start : last - start, left : left + width] += part[..., :width]
        cover = count_windows(self.plan, total.device)
        return total if cover is None else total.div_(cover[0][start:stop, None] * cover[1])

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
        placement: Convention that places the windows.
        forward: Runs the model on a batch of windows.
    """

    window: int
    stride: int
    batch_size: int = 4
    placement: ConventionName = "mmseg"
    forward: WindowForward = run_windows

    def predict(
        self,
        model: Segmenter,
        views: Views,
        size: tuple[int, int],
        stage: StageContext = region,
    ) -> Prediction:
        """Predict an image.

        Args:
            model: The model.
            views: Normalised images ``(3, h, w)``, each with whether it is mirrored; several (scales, mirrors)
                are averaged after softmax.
            size: Height and width of the labels.
            stage: Context-manager factory for the stages of the work; by default it names them in profiles.

        Returns:
            Labels at ``size``. Windows of different images never share a batch, so the result depends neither on the
            order of images nor on the number of processes.
        """
        with stage("windows"):
            logits = [(self.window_logits(model, image), mirrored) for image, mirrored in views]
        with stage("upsample + argmax"):
            labels = label_map(logits, size)
        return Prediction(
            labels,
            sum(len(part.logits) for part, _ in logits),
            sum(part.unreduced for part, _ in logits),
            all_finite(logits),
        )

    def plan(self, size: tuple[int, int]) -> WindowPlan:
        """Plan the windows of an image of a height and width, which the official convention may enlarge first."""
        enlarged = size_for_windows(size, self.window, self.placement)
        return plan_windows(enlarged, self.window, self.stride, self.placement)

    def crops(self, image: Tensor) -> Tensor:
        """Crop all windows ``(n, 3, h, w)`` from a normalised image ``(3, h, w)``, in the order of the plan."""
        plan, image = self._fit(image)
        return cut(image, plan.origins, plan.window)

    def _fit(self, image: Tensor) -> tuple[WindowPlan, Tensor]:
        plan = self.plan((image.shape[1], image.shape[2]))
        if plan.image != image.shape[1:]:
            image = F.interpolate(image[None], plan.image, mode="bilinear")[0]
        return plan, image

    def window_logits(self, model: Segmenter, image: Tensor) -> WindowLogits:
        """Run the model on all windows of a normalised image ``(3, h, w)``."""
        plan, image = self._fit(image)
        height, width = plan.window
        logits: Tensor | None = None
        unreduced: int | Tensor = 0
        for start in range(0, len(plan.origins), self.batch_size):
            origins = plan.origins[start : start + self.batch_size]
            part, flags = self.forward(model, cut(image, origins, plan.window))
            if logits is None:
                logits = part.new_empty(len(plan.origins), *part.shape[1:])
            # A copy in any case: what a CUDA graph returns is overwritten by its next run.
            logits[start : start + len(origins)] = part
            unreduced = unreduced + (flags.sum() if isinstance(flags, Tensor) else len(origins) * int(flags))
        assert logits is not None, "a plan has at least one window"
        return WindowLogits(plan, logits, model.upsampled_size(height, width), unreduced)


def cut(image: Tensor, origins: Sequence[tuple[int, int]], size: tuple[int, int]) -> Tensor:
    """Crop windows ``(n, C, h, w)`` of one size from an image ``(C, H, W)``, given their top left corners."""
    height, width = size
    return torch.stack([image[:, top : top + height, left : left + width] for top, left in origins])


def all_finite(views: Sequence[tuple[WindowLogits, bool]]) -> Tensor:
    """Return whether all logits of an image's views are finite, as a tensor, so that nothing waits for the device."""
    return torch.stack([view.logits.isfinite().all() for view, _ in views]).all()


def label_map(views: Sequence[tuple[WindowLogits, bool]], size: tuple[int, int]) -> Tensor:
    """Compute labels ``(H, W)`` from the logits of an image's views, a band of rows at a time."""
    labels = torch.empty(size, dtype=torch.int64, device=views[0][0].logits.device)
    for start, stop in bands_of(views, size):
        labels[start:stop] = best_class(_band_scores(views, size, start, stop))
    return labels


def probability_maps(
    views: Sequence[tuple[WindowLogits, bool]], size: tuple[int, int], classes: Sequence[int]
) -> Tensor:
    """Compute probabilities of some classes from the logits of an image's views, a band of rows at a time.

    Args:
        views: As of `label_map`.
        size: Height and width.
        classes: Indices of the classes.

    Returns:
        ``(len(classes), H, W)`` in float32 on the CPU: softmax over all classes, averaged over views.
    """
    maps = torch.empty(len(classes), *size)
    wanted = torch.tensor(classes, dtype=torch.int64, device=views[0][0].logits.device)
    averaged = len(views) > 1 or views[0][1]
    for start, stop in bands_of(views, size):
        scores = _band_scores(views, size, start, stop)
        share = scores.div_(len(views)) if averaged else scores.softmax(dim=0)
        maps[:, start:stop] = share[wanted].cpu()
    return maps


def bands_of(views: Sequence[tuple[WindowLogits, bool]], size: tuple[int, int]) -> list[tuple[int, int]]:
    """Split the rows into bands whose ``(K, rows, W)`` scores fit the budget; returns ``(start, stop)`` pairs."""
    logits = views[0][0].logits
    budget = BAND_BYTES if logits.device.type == "cpu" else GPU_BANDS * BAND_BYTES
    band = max(budget // (4 * logits.shape[1] * size[1]), 1)
    return [(start, min(start + band, size[0])) for start in range(0, size[0], band)]


def best_class(scores: Tensor) -> Tensor:
    """Return ``scores.argmax(dim=0)`` of ``(K, h, w)``, the first of several best classes; overwrites ``scores``.

    On a CPU ``argmax`` over the first dimension is not vectorised: comparing with the maximum takes a third of it.
    """
    if scores.device.type != "cpu":
        return scores.argmax(dim=0)
    best = scores.amax(dim=0)
    if best.isnan().any():
        return scores.argmax(dim=0)
    classes = len(scores)
    ranks = torch.arange(classes, 0, -1, dtype=scores.dtype)[:, None, None]
    return classes - scores.eq_(best).mul_(ranks).amax(dim=0).long()


def _band_scores(views: Sequence[tuple[WindowLogits, bool]], size: tuple[int, int], start: int, stop: int) -> Tensor:
    """Return scores ``(K, stop - start, W)`` of rows: the logits of a single view, else summed probabilities."""
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
