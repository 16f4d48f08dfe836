"""Whether an exported file computes what the model does, as far as rounding lets anybody tell.

Two correct programs that add in another order differ by rounding errors, and where a reducer has to choose between
two tokens that are equal but for those, by the choice. How much that is depends on the model and the image, and is
measured: by how much the model's own logits move when the pixels move by a few of their rounding errors.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import ExportError

PIXEL_STEPS = 8
"""Rounding errors by which pixels move: a normalised grey level is some thousand times as large."""
FACTOR = 8.0
"""Times the model's own movement that an exported file may be off: its rounding happens in every layer."""
SAMPLES = 2
MOST_SAMPLES = 32
"""Movements tried for a crop that is off by more: near a choice, only some of them make the model choose otherwise."""


class Sensitivity:
    """How far the model's logits of each crop move by rounding alone, measured as they are asked for.

    Args:
        forward: The model: windows ``(B, 3, H, W)`` to logits.
        crops: Windows ``(n, 3, H, W)``.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], crops: Tensor) -> None:
        self.forward = forward
        self.crops = crops
        self.logits = torch.cat([forward(crop[None]) for crop in crops])
        self._moved = torch.zeros(len(crops), dtype=torch.float64)
        self._samples = [0] * len(crops)
        self._generator = torch.Generator().manual_seed(0)

    def tolerance(self, crop: int, samples: int = SAMPLES) -> float:
        """Give the largest difference of a crop's logits that rounding explains, after so many movements."""
        while self._samples[crop] < samples:
            self._samples[crop] += 1
            moved = self._moved_logits(crop)
            self._moved[crop] = max(float(self._moved[crop]), _difference(moved, self.logits[crop]))
        smallest = torch.finfo(self.logits.dtype).eps * float(self.logits[crop].abs().max())
        return FACTOR * max(float(self._moved[crop]), smallest)

    def explains(self, crop: int, difference: float) -> bool:
        """Tell whether rounding explains a difference of a crop's logits."""
        samples = SAMPLES
        while difference > self.tolerance(crop, samples):
            if samples >= MOST_SAMPLES:
                return False
            samples += SAMPLES
        return True

    def _moved_logits(self, crop: int) -> Tensor:
        pixels = self.crops[crop]
        noise = 2 * torch.rand(pixels.shape, generator=self._generator, dtype=pixels.dtype) - 1
        step = PIXEL_STEPS * torch.finfo(pixels.dtype).eps * float(pixels.abs().max())
        return self.forward((pixels + step * noise)[None])[0]


def check_file(
    run: Callable[[Tensor], Tensor], forward: Callable[[Tensor], Tensor], crops: Tensor, batch_sizes: list[int]
) -> dict[str, Any]:
    """Compare an exported file with the model on real crops, at several batch sizes.

    Args:
        run: Runs the file.
        forward: The model: windows ``(B, 3, H, W)`` to logits ``(B, K, h, w)``.
        crops: Windows ``(n, 3, H, W)``.
        batch_sizes: Numbers of windows at once.

    Returns:
        For every batch size, in JSON's types: the largest difference of logits, the largest that rounding explains, the
        share of labels that agree, and how many do not.

    Raises:
        ExportError: A difference is larger than rounding explains.
    """
    sensitivity = Sensitivity(forward, crops)
    return {
        "crops": len(crops),
        "largest_logit": float(sensitivity.logits.abs().max()),
        "batches": [_check_batches(run, sensitivity, size) for size in batch_sizes],
    }


def _check_batches(run: Callable[[Tensor], Tensor], sensitivity: Sensitivity, size: int) -> dict[str, Any]:
    crops, expected = sensitivity.crops, sensitivity.logits
    differences: dict[int, float] = {}
    wrong = 0
    for start in range(0, len(crops), size):
        numbers = [number % len(crops) for number in range(start, start + size)]
        found = run(crops[numbers])
        if found.shape != (size, *expected.shape[1:]):
            raise ExportError(
                f"the exported file gives logits of shape {tuple(found.shape)} for {size} windows; the model gives "
                f"{(size, *expected.shape[1:])}"
            )
        for number, logits in zip(numbers, found, strict=True):
            difference = _difference(logits, expected[number])
            if not sensitivity.explains(number, difference):
                raise ExportError(
                    f"the exported file is wrong: at batch size {size} the logits of crop {number} differ by "
                    f"{difference:.2g}, rounding explains {sensitivity.tolerance(number):.2g}; nothing was kept"
                )
            if number not in differences:
                wrong += int((logits.argmax(0) != expected[number].argmax(0)).sum())
            differences[number] = max(difference, differences.get(number, 0.0))
    labels = expected[:, 0].numel()
    return {
        "batch_size": size,
        "max_abs_difference": max(differences.values()),
        "tolerance": max(sensitivity.tolerance(number) for number in differences),
        "label_agreement": 1 - wrong / labels,
        "labels_differing": wrong,
        "labels": labels,
    }


def _difference(one: Tensor, other: Tensor) -> float:
    """Give the largest absolute difference; infinite where one of them holds what is no number."""
    difference = float((one.double() - other.double()).abs().max())
    return difference if difference == difference else float("inf")
