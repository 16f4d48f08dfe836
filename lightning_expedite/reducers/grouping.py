"""Which patches share a token: what reducers report about a forward pass on request.

A reduction reports each of its steps to the recorder that was passed to ``Segmenter.segment_patches``, if one was::

    if self.recorder is not None:
        self.recorder.add(self.layout, layer, group, tokens.shape[1])
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .base import TokenLayout

DROPPED = -1
"""Group of patches that have no token of their own any more, nor a share in one."""


@dataclass(frozen=True)
class Grouping:
    """Which patches shared a token at one step of a forward pass.

    Args:
        layer: Layer, from 1.
        group: ``(B, rows, columns)`` int64, or ``(B, heads, rows, columns)`` where each head groups separately:
            patches with the same number share a token, those with `DROPPED` have none.
        count: Tokens that remain, prefix tokens included; ``(B, heads)`` where it differs.
        part: Module of the layer that ran on these tokens; empty if they are the layer's output.
        lasts: Whether the following layers run on these tokens too.
        unit: What is counted, in the plural.
    """

    layer: int
    group: Tensor
    count: int | Tensor
    part: str = ""
    lasts: bool = False
    unit: str = "tokens"


class GroupRecorder:
    """Collects the groupings of one forward pass in ``steps``, in order."""

    def __init__(self) -> None:
        self.steps: list[Grouping] = []

    def add(self, layout: TokenLayout, layer: int, group: Tensor, count: int | Tensor, **details: Any) -> None:
        """Report a step: the arguments of `Grouping`, with ``group`` as ``(B, [heads,] rows * columns)``."""
        maps = group.detach().unflatten(-1, (layout.rows, layout.columns))
        self.steps.append(Grouping(layer, maps, count, **details))
