"""How sure a loss of mIoU is: a paired bootstrap over images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .counts import Floats, ImageCounts, mean_iou

RESAMPLES = 2000
SEED = 0
_BLOCK_VALUES = 4_000_000  # weights held at once, of 8 bytes


@dataclass(frozen=True)
class Losses:
    """Losses of mIoU against the unreduced model, in points, of S settings: on the images, and on R resamples of them.

    A resample takes as many images as there are, with replacement, and the same ones for all models. How far its loss
    lies from that on the images, in its own standard errors, stands for how far the latter lies from the loss on all
    images of the kind, in its own: the studentised bootstrap (Davison and Hinkley 1997, section 2.4). A setting that
    looks good by chance mostly has a small standard error by chance too; bounds that leave this out are too low.
    """

    estimates: Floats  # (S,)
    errors: Floats  # (S,) standard errors
    resampled: Floats  # (R, S)
    resampled_errors: Floats  # (R, S)

    def interval(self, setting: int, confidence: float) -> tuple[float, float]:
        """Give a two-sided confidence interval of one setting's loss, as if it were the only one."""
        tail = (1 - confidence) / 2
        low, high = np.quantile(self.plausible[:, setting], (tail, 1 - tail))
        return float(low), float(high)

    def probability(self, setting: int, limit: float) -> float:
        """Give the share of plausible losses of one setting that are at most ``limit``, as if it were the only one."""
        return float((self.plausible[:, setting] <= limit).mean())

    def upper_bounds(self, confidence: float) -> Floats:
        """Give bounds ``(S,)`` that all losses keep at once with this confidence.

        They hold whichever of the settings is chosen afterwards. Each is the estimate plus a multiple of its standard
        error; the multiple is the quantile of the largest deviation of any setting in a resample (the max-statistic:
        Westfall and Young 1993).
        """
        if not self.estimates.size:
            return self.estimates
        largest = (-self._deviations).max(axis=1)
        bounds: Floats = self.estimates + np.quantile(largest, confidence) * self.errors
        return bounds

    def share_smallest(self, setting: int, among: Sequence[int]) -> float:
        """Give the share of plausible worlds in which a setting loses least of several, ties counted for it."""
        return float((self.plausible[:, setting] <= self.plausible[:, list(among)].min(axis=1)).mean())

    @cached_property
    def plausible(self) -> Floats:
        """Losses ``(R, S)`` that all images of the kind may have; a row is of one resample."""
        plausible: Floats = self.estimates - self._deviations * self.errors
        return plausible

    @cached_property
    def _deviations(self) -> Floats:
        """Distances ``(R, S)`` of resampled losses from the estimates, in standard errors.

        A resample in which nothing differs has no standard error of its own: it takes that of the images.
        """
        errors = np.where(self.resampled_errors > 0, self.resampled_errors, self.errors)
        deviations: Floats = (self.resampled - self.estimates) / np.where(errors > 0, errors, 1.0)
        return deviations


def bootstrap_losses(
    unreduced: ImageCounts, settings: Sequence[ImageCounts], resamples: int = RESAMPLES, seed: int = SEED
) -> Losses:
    """Resample images and compute the losses of all settings on them, with their standard errors.

    mIoU is computed anew from the summed pixel counts of each resample; classes that occur in neither its labels nor
    its predictions are left out, as everywhere.

    Args:
        unreduced: Counts of the unreduced model.
        settings: Counts of the settings, of the same images in the same order.
        resamples: How many resamples.
        seed: Of the choice of images: the same seed, number of images and resamples give the same resamples.

    Raises:
        ValueError: A setting has other images.
    """
    if any(counts.images != unreduced.images for counts in settings):
        raise ValueError("all settings must have the images of the unreduced model, in the same order")
    images = len(unreduced.images)
    estimates, errors = compare(np.ones((1, images)), unreduced, settings)
    blocks = [compare(weights, unreduced, settings) for weights in draw_weights(images, resamples, seed)]
    losses, their_errors = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return Losses(estimates[0], errors[0], losses, their_errors)


def compare(weights: Floats, unreduced: ImageCounts, settings: Sequence[ImageCounts]) -> tuple[Floats, Floats]:
    """Compute losses and their standard errors ``(r, S)`` on images of given weights ``(r, N)``.

    The errors are those of mIoU's linearisation (the infinitesimal jackknife: Davison and Hinkley 1997, section 2.7).
    """
    losses = np.zeros((len(weights), len(settings)))
    errors = np.zeros_like(losses)
    base, influence = miou_and_influence(weights, unreduced)
    for number, counts in enumerate(settings):
        miou, its = miou_and_influence(weights, counts)
        losses[:, number] = base - miou
        errors[:, number] = np.sqrt((weights * (influence - its) ** 2).sum(axis=1))
    return losses, errors


def miou_and_influence(weights: Floats, counts: ImageCounts) -> tuple[Floats, Floats]:
    """Compute mIoU ``(r,)`` in percent on images of given weights ``(r, N)``, and each image's influence ``(r, N)``.

    The influence is the derivative of mIoU by the image's weight.
    """
    # Sums of pixels stay far below 2^53, up to which float64 holds whole numbers exactly.
    intersections, unions = counts.intersection.astype(np.float64), counts.union.astype(np.float64)
    intersection, union = weights @ intersections, weights @ unions
    present = union > 0
    share = np.where(present, 100.0, 0.0) / np.where(present, union, 1.0) / present.sum(axis=1, keepdims=True)
    iou = intersection / np.where(present, union, 1.0)
    return mean_iou(intersection, union), share @ intersections.T - (share * iou) @ unions.T


def draw_weights(images: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Give, in blocks ``(r, N)``, how often each image is in each resample."""
    generator = np.random.default_rng(seed)
    rows = max(_BLOCK_VALUES // images, 1)
    for start in range(0, resamples, rows):
        drawn = generator.multinomial(images, np.full(images, 1 / images), size=min(rows, resamples - start))
        yield drawn.astype(np.float64)
