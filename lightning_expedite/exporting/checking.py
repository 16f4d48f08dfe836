"""Check that an exported file computes what the model does, up to rounding.

Two correct programs that add in another order differ by rounding errors, and by more where a reducer has to choose
between two tokens that are equal up to rounding. The tolerance is therefore measured per crop: by how much the model's
own logits change when the pixels change by a few of their rounding errors.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import ExportError

Run = Callable[[Tensor], Tensor]
"""Runs a model or a file: windows ``(B, 3, H, W)`` to logits ``(B, K, h, w)``."""

PIXEL_STEPS = 8
"""Rounding errors by which pixels are perturbed; a grey level is some thousand times as large."""
FACTOR = 8.0
"""Times the model's own change that an exported file may differ by: it rounds in every layer."""
SAMPLES, MOST_SAMPLES = 2, 32
"""Perturbations per crop; more are tried for one that differs by more, as only some lead to another choice."""


class Sensitivity:
    """How far rounding changes the model's logits of each crop ``(n, 3, H, W)``, measured on demand."""

    def __init__(self, forward: Run, crops: Tensor) -> None:
        self.forward = forward
        self.crops = crops
        self.logits = torch.cat([forward(crop[None]) for crop in crops])
        self._changes: list[list[float]] = [[] for _ in crops]
        self._generator = torch.Generator().manual_seed(0)

    def tolerance(self, crop: int, difference: float = 0.0) -> float:
        """Return the largest difference that rounding explains; samples further while it is below ``difference``."""
        changes, logits = self._changes[crop], self.logits[crop]
        smallest = torch.finfo(logits.dtype).eps * float(logits.abs().max())
        while True:
            tolerance = FACTOR * max(smallest, *changes, 0.0)
            if len(changes) >= (SAMPLES if tolerance >= difference else MOST_SAMPLES):
                return tolerance
            pixels = self.crops[crop]
            noise = 2 * torch.rand(pixels.shape, generator=self._generator, dtype=pixels.dtype) - 1
            step = PIXEL_STEPS * torch.finfo(pixels.dtype).eps * float(pixels.abs().max())
            changes.append(_largest_difference(self.forward((pixels + step * noise)[None])[0], logits))


def check_file(run: Run, forward: Run, crops: Tensor, batch_sizes: list[int]) -> dict[str, Any]:
    """Compare an exported file with the model on real crops ``(n, 3, H, W)``, at several batch sizes.

    Returns:
        As JSON, for every batch size: the largest difference of logits, the largest that rounding explains, and how
        many labels agree.

    Raises:
        ExportError: A difference is larger than rounding explains.
    """
    sensitivity = Sensitivity(forward, crops)
    return {
        "crops": len(crops),
        "largest_logit": float(sensitivity.logits.abs().max()),
        "batches": [_check_batches(run, sensitivity, size) for size in batch_sizes],
    }


def _check_batches(run: Run, sensitivity: Sensitivity, size: int) -> dict[str, Any]:
    expected = sensitivity.logits
    differences: list[float] = []
    wrong = [0] * len(expected)
    for start in range(0, len(expected), size):
        indices = [index % len(expected) for index in range(start, start + size)]  # the last batch is filled up
        found = run(sensitivity.crops[indices])
        if found.shape != (size, *expected.shape[1:]):
            raise ExportError(
                f"the exported file returns logits of shape {tuple(found.shape)} for {size} windows; the model's are "
                f"{(size, *expected.shape[1:])}"
            )
        for crop, logits in zip(indices, found, strict=True):
            difference = _largest_difference(logits, expected[crop])
            tolerance = sensitivity.tolerance(crop, difference)
            if difference > tolerance:
                raise ExportError(
                    f"the exported file is wrong: at batch size {size} the logits of crop {crop} differ by "
                    f"{difference:.2g}, rounding explains {tolerance:.2g}; nothing was kept"
                )
            differences.append(difference)
            wrong[crop] = int((logits.argmax(0) != expected[crop].argmax(0)).sum())
    labels = expected[:, 0].numel()
    return {
        "batch_size": size,
        "max_abs_difference": max(differences),
        "tolerance": max(sensitivity.tolerance(crop) for crop in range(len(expected))),
        "label_agreement": 1 - sum(wrong) / labels,
        "labels_differing": sum(wrong),
        "labels": labels,
    }


def _largest_difference(a: Tensor, b: Tensor) -> float:
    """Return the largest absolute difference; infinity if one holds NaN."""
    return float((a.double() - b.double()).abs().nan_to_num(torch.inf, torch.inf).max())
