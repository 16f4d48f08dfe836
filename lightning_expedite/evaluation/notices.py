"""Warnings of a run: on screen as soon as they are known, and in its results."""

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, distributed

Item = TypeVar("Item")

CHECKED_IMAGES = 4  # four photographs in a row that are all bright, and none of them dark anywhere, are not expected
MAX_IGNORED = 0.9  # share of ignored pixels beyond which a mistake is more likely than sparse labels
_MAX_NORMALISED = 10.0  # far beyond any normalised pixel: the usual statistics reach from -2.2 to 2.7
_SLACK = 0.05  # by which resampled values may leave the range from 0 to 1
_BRIGHT = 0.5
_MIN_SHIFTED, _MIN_CLASS = 0.3, 0.02  # shares of the labelled pixels: of all classes together, and of each of three
_CHECK = "check the label files, the order of the classes, and reduce_zero_label or ignore where the data set has them"


class Notices:
    """Warnings of a run, each shown once.

    Attributes:
        texts: All of them so far.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, text: str, every_process: bool = False) -> None:
        """Emit and keep a warning.

        Args:
            text: A sentence.
            every_process: Whether it concerns this process only, so that not just the first process shows it.
        """
        if text in self.texts:
            return
        self.texts.append(text)
        if every_process:
            warnings.warn(text, stacklevel=2)
        else:
            rank_zero_warn(text, stacklevel=5)

    def recall(self, texts: Iterable[str]) -> None:
        """Keep warnings that an interrupted run has shown, without showing them again."""
        self.texts = list(dict.fromkeys([*self.texts, *texts]))

    def gather(self) -> None:
        """Join the warnings of all processes, all of which have to call it."""
        self.texts = list(dict.fromkeys(gather(self.texts)))


def gather(items: Sequence[Item]) -> list[Item]:
    """Return the items of all processes, on every process, in the order of the processes."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return list(items)
    parts: list[Sequence[Item]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


class FirstImages:
    """Checks the first images of a run for pixels that are not normalised and labels that are shifted by one class.

    Normalised pixels lie on both sides of 0. One image is enough to notice values of hundreds. Values from 0 to 1 are
    noticed after four: a single bright photograph may have no pixel below the mean. Their lowest has to be 0 and not
    merely positive, which in normalised pixels would be the mean's own grey.
    """

    def __init__(self) -> None:
        self._images = 0
        self._low, self._high = math.inf, -math.inf
        self._labelled = 0
        # Pixels of each class whose prediction is the label plus so many classes.
        self._hits = {shift: torch.zeros(256, dtype=torch.int64) for shift in (0, 1, -1)}

    def check(self, image: Tensor, prediction: Tensor, target: Tensor | None, ignore_index: int) -> Iterator[str]:
        """Check one more image; this waits for the device, at the first few images only.

        Args:
            image: Normalised pixels ``(3, h, w)``.
            prediction: Class indices ``(H, W)``.
            target: Class indices ``(H, W)``, or ``None``.
            ignore_index: Value of ignored pixels.

        Yields:
            What is wrong, once.
        """
        if self._images >= CHECKED_IMAGES:
            return
        self._images += 1
        low, high = (float(value) for value in image.aminmax())
        self._low, self._high = min(self._low, low), max(self._high, high)
        if self._unnormalised():
            self._images = CHECKED_IMAGES
            yield (
                f"the images reach the model with values from {self._low:.4g} to {self._high:.4g}, as if they were "
                "not normalised: it expects about -1 to 1 (vit) or -2.1 to 2.6 (deit); fix the data module"
            )
        if target is None:
            return
        labelled = (target != ignore_index).to(prediction.device)
        target = target.to(prediction.device)[labelled].long()
        difference = prediction[labelled] - target
        self._labelled += len(target)
        for shift, hits in self._hits.items():
            hits += target[difference == shift].bincount(minlength=256).cpu()
        if self._images == CHECKED_IMAGES:
            yield from self._shifted()

    def finish(self) -> Iterator[str]:
        """Check the labels of a run that had fewer images; yields what is wrong."""
        if 0 < self._images < CHECKED_IMAGES:
            yield from self._shifted()

    def _shifted(self) -> Iterator[str]:
        for shift, advice in ((1, "leave reduce_zero_label out, if it is set"), (-1, "set reduce_zero_label")):
            shares = self._hits[shift] / max(self._labelled, 1)
            usual = float(self._hits[0].sum() / max(self._labelled, 1))
            if float(shares.sum()) > max(_MIN_SHIFTED, usual) and int(shares.gt(_MIN_CLASS).sum()) > 2:
                yield (
                    f"{100 * shares.sum():.0f} % of the labelled pixels of the first images are predicted as the "
                    f"{'next' if shift > 0 else 'previous'} class of the list: labels seem to be shifted by one class; "
                    f"{advice}"
                )

    def _unnormalised(self) -> bool:
        if max(-self._low, self._high) > _MAX_NORMALISED:
            return True
        from_0_to_1 = abs(self._low) <= _SLACK and _BRIGHT < self._high <= 1 + _SLACK
        return self._images == CHECKED_IMAGES and from_0_to_1


def label_warnings(images: Sequence[Any], classes: Sequence[str], ignored: Iterable[int] = ()) -> Iterator[str]:
    """Check the counts of a run for signs of labels that were read in a wrong way.

    Args:
        images: `ImageResult` of all images of the run.
        classes: Names of the classes.
        ignored: Classes whose labels are ignored altogether.

    Yields:
        A sentence for each: nearly all pixels ignored, images without any labelled pixel, ignored classes that are
        predicted, a single class in all labels, a single class in all predictions.
    """
    if not images:
        return
    counts = torch.tensor([image.counts for image in images])  # (N, 3, K)
    _, prediction, label = counts.sum(dim=0)
    labelled = counts[:, 2].sum(dim=1)
    pixels = sum(image.size[0] * image.size[1] for image in images)
    ignored_share = 1 - int(labelled.sum()) / pixels
    empty = (labelled == 0).nonzero().flatten().tolist()
    if ignored_share > MAX_IGNORED:
        yield f"{_percent(ignored_share)} % of all pixels are ignored, the scores are of the rest alone: {_CHECK}"
    elif empty:
        yield (
            f"{len(empty)} of {len(images)} images have no labelled pixel and count nowhere (the first is "
            f"{images[empty[0]].name}): {_CHECK}"
        )
    for index in ignored:
        if prediction[index] and not label[index]:
            yield (
                f"class {classes[index]} is ignored in all labels, but predicted for {int(prediction[index]):,} pixels "
                "of other classes: it counts as IoU 0 in the mIoU"
            )
    if len(images) == 1 or len(classes) == 1:
        return
    if (label > 0).sum() == 1:
        yield f"all labels are of one class, {classes[int(label.argmax())]}: {_CHECK}"
    elif (label > 0).sum() > 1 and (prediction > 0).sum() == 1:
        yield (
            f"all pixels were predicted to be of one class, {classes[int(prediction.argmax())]}: check that the "
            "weights are trained, and how the images are normalised"
        )


def _percent(share: float) -> str:
    """Format a share in percent; one below 100 % is never rounded to it."""
    return "100" if share == 1 else f"{min(100 * share, 99.99):.2f}"
