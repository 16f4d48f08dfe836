"""Bilinear interpolation of a band of rows at a time, so that full-size logits are never in memory at once."""

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..reducers.distances import in_float32

Rows = Callable[[int, int], Tensor]  # logits (K, stop - start, W) of the rows start to stop

SMALL = 4096  # numbers; 16 KiB


def row_weights(size: int, target: int, start: int, stop: int, device: torch.device) -> tuple[int, int, Tensor]:
    """Compute weights of source rows in the target rows ``start`` to ``stop`` of a bilinear interpolation.

    The arithmetic is that of ``F.interpolate(mode="bilinear", align_corners=False)``, which computes a row's place
    in float32 with a single rounding. Images of one size need the same weights again and again, so they are cached, on
    their device; only a few of large bands, and on a GPU, where a band may be a whole image.

    Returns:
        First and last-plus-one source row, and weights ``(stop - start, rows)``.
    """
    rows = stop - start
    small = device.type == "cpu" and rows * (rows * size // target + 2) <= SMALL
    return (_small_weights if small else _large_weights)(size, target, start, stop, device)


def _row_weights(size: int, target: int, start: int, stop: int, device: torch.device) -> tuple[int, int, Tensor]:
    with torch.inference_mode(False):  # else a later caller could not differentiate through what is kept
        scale = torch.tensor(size, dtype=torch.float32) / target
        at = ((torch.arange(start, stop, dtype=torch.float64) + 0.5) * scale.double() - 0.5).float().clamp_min(0)
        upper = at.long().clamp_max(size - 1)
        lower = (upper + 1).clamp_max(size - 1)
        first, last = int(upper[0]), int(lower[-1]) + 1
        share = at - upper
        weights = torch.zeros(stop - start, last - first, dtype=at.dtype)
        weights.scatter_add_(1, (upper - first)[:, None], (1 - share)[:, None])
        weights.scatter_add_(1, (lower - first)[:, None], share[:, None])
        return first, last, weights.to(device, non_blocking=True)


_small_weights = lru_cache(maxsize=4096)(_row_weights)
_large_weights = lru_cache(maxsize=64)(_row_weights)


def interpolate_rows(
    rows: Rows, size: tuple[int, int], target: tuple[int, int], start: int, stop: int, device: torch.device
) -> Tensor:
    """Interpolate logits to another size, for a band of rows of the result.

    Args:
        rows: Returns rows of the source.
        size: Height and width of the source.
        target: Height and width of the whole result.
        start: First row of the result.
        stop: Last row of the result, plus one.
        device: Where to compute.

    Returns:
        ``(K, stop - start, W)`` in float32 or wider, equal to the rows of ``F.interpolate`` up to rounding.
    """
    if size == target:
        return rows(start, stop)
    first, last, weights = row_weights(size[0], target[0], start, stop, device)
    return _interpolate(rows(first, last), target[1], weights)


@in_float32
def _interpolate(logits: Tensor, width: int, weights: Tensor) -> Tensor:
    """Interpolate logits ``(K, n, W)`` along their rows to ``width``, and mix their rows by weights ``(m, n)``."""
    if logits.device.type == "cpu":  # same values in half the time; on a GPU the kernel of one dimension is slow
        stretched = F.interpolate(logits, width, mode="linear")
    else:
        stretched = F.interpolate(logits[None], (logits.shape[1], width), mode="bilinear")[0]
    return weights.to(stretched.dtype) @ stretched
