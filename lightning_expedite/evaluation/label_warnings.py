"""What the labels of a whole run say about themselves: a wrong table of classes shows in their counts."""

from collections.abc import Iterator, Sequence

import torch

from .module import ImageResult

MOST_IGNORED = 0.9  # share of ignored pixels beyond which a mistake is more likely than sparse labels
_CHECK = "check the label files, the order of the classes, and reduce_zero_label or ignore where the data set has them"


def label_warnings(images: Sequence[ImageResult], classes: Sequence[str]) -> Iterator[str]:
    """Find what looks like labels that were read by the wrong table.

    Args:
        images: All images of the run.
        classes: Names of the classes.

    Yields:
        A sentence for each: nearly all pixels ignored, images without any labelled pixel, a single class in all labels,
        a single class in all predictions.
    """
    if not images:
        return
    counts = torch.tensor([image.counts for image in images])  # (N, 3, K)
    _, prediction, label = counts.sum(dim=0)
    labelled = counts[:, 2].sum(dim=1)
    pixels = sum(image.size[0] * image.size[1] for image in images)
    ignored = 1 - int(labelled.sum()) / pixels
    empty = (labelled == 0).nonzero().flatten().tolist()
    if ignored > MOST_IGNORED:
        yield f"{_percent(ignored)} % of all pixels are ignored, the scores are of the rest alone: {_CHECK}"
    elif empty:
        yield (
            f"{len(empty)} of {len(images)} images have no labelled pixel and count nowhere (the first is "
            f"{images[empty[0]].name}): {_CHECK}"
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
    """Show a share in percent; one below 100 % is never rounded to it."""
    return "100" if share == 1 else f"{min(100 * share, 99.99):.2f}"
