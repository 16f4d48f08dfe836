"""Run-length encoded masks in COCO's format, as PASCAL in Detail uses it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_FIRST_CODE = ord("0")
_PAYLOAD_BITS = 5
_PAYLOAD, _SIGN, _MORE = 0x1F, 0x10, 0x20


def decode_mask(size: Sequence[int], counts: str | Sequence[int]) -> NDArray[np.bool_]:
    """Return a mask as ``(H, W)`` bool.

    Args:
        size: Height and width in pixels.
        counts: Lengths of the runs, column by column, zeros first: as numbers or as COCO's string.

    Raises:
        ValueError: If the runs are damaged or do not fill the mask.
    """
    height, width = size
    runs = _parse(counts) if isinstance(counts, str) else np.asarray(counts, np.int64)
    if ((runs < 0) | (runs > height * width)).any() or runs.sum() != height * width:
        raise ValueError(f"runs do not fill {height} x {width} pixels")
    bits = np.arange(len(runs)) % 2 == 1
    return np.repeat(bits, runs).reshape(width, height).T


def _parse(counts: str) -> NDArray[np.int64]:
    """Return the run lengths of COCO's string.

    Each number is written in base 32, lowest digit first, each digit a character with a flag for "more to
    come"; the highest digit carries the sign. From the fourth on, numbers are differences to the one two
    places before.
    """
    codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - _FIRST_CODE
    if not codes.size:
        return codes
    ends = np.flatnonzero(codes & _MORE == 0)
    if codes.min() < 0 or codes.max() >= 2 * _MORE or not ends.size or ends[-1] != len(codes) - 1:
        raise ValueError("the string of runs is damaged")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    places = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes & _PAYLOAD) << (_PAYLOAD_BITS * places), starts)
    numbers -= np.where(codes[ends] & _SIGN, np.int64(1) << (_PAYLOAD_BITS * lengths), 0)
    for parity in (1, 2):
        numbers[parity::2] = np.cumsum(numbers[parity::2])
    return numbers
