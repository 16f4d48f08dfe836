"""Uncertainty of the loss of mIoU: a paired bootstrap over images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .comparison import Floats, ImageCounts, mean_iou

RESAMPLES = 2000
SEED = 0
_BLOCK_VALUES = 4_000_000  # weights held at once, of 8 bytes


@dataclass(frozen=True)
class Losses:
    """Losses of mIoU from the baseline, in points, of S settings: on the images, and on R resamples of them.

    A resample draws as many images as there are, with replacement, the same ones for all models. The distance of its
    loss from that on the images, in standard errors of the resample, estimates the distance of the latter from the
    loss on all images of the kind: the studentised bootstrap (Davison and Hinkley 1997, section 2.4). A setting that
    looks good by chance mostly has a small standard error by chance too; bounds that ignore this are too low.
    """

    estimates: Floats  # (S,)
    errors: Floats  # (S,) standard errors
    resampled: Floats  # (R, S)
    resampled_errors: Floats  # (R, S)

    def interval(self, setting: int, confidence: float) -> tuple[float, float]:
        """Return a two-sided confidence interval of one setting's loss, as if it were the only one."""
        tail = (1 - confidence) / 2
        low, high = np.quantile(self.plausible[:, setting], (tail, 1 - tail))
        return float(low), float(high)

    def probability(self, setting: int, limit: float) -> float:
        """Return the probability that the loss of one setting is at most ``limit``, as if it were the only one."""
        return float((self.plausible[:, setting] <= limit).mean())

    def upper_bounds(self, confidence: float) -> Floats:
        """Return bounds ``(S,)`` that hold for all losses at once with this confidence.

        They hold whichever setting is chosen afterwards. Each is the estimate plus a multiple of its standard error;
        the multiple is the quantile of the largest deviation of any setting in a resample (the max-statistic: Westfall
        and Young 1993).
        """
        if not self.estimates.size:
            return self.estimates
        largest = (-self._deviations).max(axis=1)
        bounds: Floats = self.estimates + np.quantile(largest, confidence) * self.errors
        return bounds

    def share_smallest(self, setting: int, among: Sequence[int]) -> float:
        """Return the probability that a setting loses least of several, ties counted for it."""
        return float((self.plausible[:, setting] <= self.plausible[:, list(among)].min(axis=1)).mean())

    @cached_property
    def plausible(self) -> Floats:
        """Plausible losses ``(R, S)`` on all images of the kind, one row per resample."""
        plausible: Floats = self.estimates - self._deviations * self.errors
        return plausible

    @cached_property
    def _deviations(self) -> Floats:
        """Distances ``(R, S)`` of resampled losses from the estimates, in standard errors."""
        # A resample in which nothing differs takes the standard error of the images; one that has none of a setting's
        # images counts as no deviation.
        errors = np.where(self.resampled_errors > 0, self.resampled_errors, self.errors)
        return np.nan_to_num((self.resampled - self.estimates) / np.where(errors > 0, errors, 1.0))


def bootstrap_losses(
    baseline: ImageCounts, settings: Sequence[ImageCounts], resamples: int = RESAMPLES, seed: int = SEED
) -> Losses:
    """Resample images and compute the losses of all settings on them, with their standard errors.

    mIoU is computed from the summed pixel counts of each resample; classes in neither its labels nor its predictions
    are left out, as in every evaluation. A setting scored on some of the images only is compared with the baseline on
    these.

    Args:
        baseline: Counts of the baseline.
        settings: Counts of each setting, on images of the baseline.
        resamples: Number of resamples.
        seed: Of the drawn images.

    Raises:
        ValueError: A setting has an image that the baseline does not have.
    """
    if any({name for _, name, _, _ in counts.images} - baseline.positions.keys() for counts in settings):
        raise ValueError("every image of a setting must be one of the baseline")
    images = len(baseline.images)
    estimates, errors = losses_and_errors(np.ones((1, images)), baseline, settings)
    blocks = [losses_and_errors(weights, baseline, settings) for weights in draw_weights(images, resamples, seed)]
    resampled, resampled_errors = (np.concatenate(values) for values in zip(*blocks, strict=True))
    return Losses(estimates[0], errors[0], resampled, resampled_errors)


def losses_and_errors(weights: Floats, baseline: ImageCounts, settings: Sequence[ImageCounts]) -> tuple[Floats, Floats]:
    """Compute losses and their standard errors ``(r, S)`` with image weights ``(r, N)``.

    The errors are those of mIoU's linearisation (the infinitesimal jackknife: Davison and Hinkley 1997, section 2.7).
    """
    losses, errors = np.zeros((2, len(weights), len(settings)))
    full = miou_and_influence(weights, baseline)
    for number, counts in enumerate(settings):
        names = [name for _, name, _, _ in counts.images]
        own, (miou, influence) = weights, full
        if len(names) < len(baseline.images):
            own = weights[:, [baseline.positions[name] for name in names]]
            miou, influence = miou_and_influence(own, baseline.select(names))
        its_miou, its_influence = miou_and_influence(own, counts)
        losses[:, number] = miou - its_miou
        errors[:, number] = np.sqrt((own * (influence - its_influence) ** 2).sum(axis=1))
    return losses, errors


def miou_and_influence(weights: Floats, counts: ImageCounts) -> tuple[Floats, Floats]:
    """Compute mIoU ``(r,)`` in percent with image weights ``(r, N)``, and each image's influence ``(r, N)``.

    The influence is the derivative of mIoU with respect to the image's weight.
    """
    # Sums of pixels stay far below 2^53, up to which float64 holds integers exactly.
    intersections, unions = counts.intersection.astype(np.float64), counts.union.astype(np.float64)
    intersection, union = weights @ intersections, weights @ unions
    present = union > 0
    classes = np.maximum(present.sum(axis=1, keepdims=True), 1)
    share = np.where(present, 100.0, 0.0) / np.where(present, union, 1.0) / classes
    iou = intersection / np.where(present, union, 1.0)
    return mean_iou(intersection, union), share @ intersections.T - (share * iou) @ unions.T


def draw_weights(images: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Draw, in blocks ``(r, N)``, how often each image is in each resample."""
    generator = np.random.default_rng(seed)
    rows = max(_BLOCK_VALUES // images, 1)
    for start in range(0, resamples, rows):
        drawn = generator.multinomial(images, np.full(images, 1 / images), size=min(rows, resamples - start))
        yield drawn.astype(np.float64)
