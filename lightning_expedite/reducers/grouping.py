"""Which patches share one token: what a reducer tells of a forward pass to whoever asks.

Whoever wants to know hands a `GroupRecorder` to ``Segmenter.segment_patches``. A reduction then finds it in
``self.recorder`` and reports each of its steps; in all other passes ``self.recorder`` is ``None`` and nothing is done::

    if self.recorder is not None:
        self.recorder.add(self.layout, layer, group, tokens.shape[1])
"""

from dataclasses import dataclass

from torch import Tensor

from .base import TokenLayout

DROPPED = -1
"""Stands in a map of groups for patches that no longer have a token of their own or a share in one."""


@dataclass(frozen=True)
class Grouping:
    """Which patches shared a token at one step of a forward pass.

    Args:
        layer: Layer, from 1.
        group: ``(B, rows, columns)`` int64, or ``(B, heads, rows, columns)`` where each head groups for itself:
            patches with the same number share a token, those with `DROPPED` have none.
        count: Tokens that the model went on with, class and distillation tokens included; ``(B, heads)`` where it
            differs.
        part: The part of the layer that ran on these tokens; empty where they are what the layer gave out.
        lasts: Whether the layers that follow run on these tokens too.
        unit: What is counted, in the plural.
    """

    layer: int
    group: Tensor
    count: int | Tensor
    part: str = ""
    lasts: bool = False
    unit: str = "tokens"


class GroupRecorder:
    """Collects the groupings of one forward pass, in ``steps``, in the order in which they came about."""

    def __init__(self) -> None:
        self.steps: list[Grouping] = []

    def add(
        self,
        layout: TokenLayout,
        layer: int,
        group: Tensor,
        count: int | Tensor,
        *,
        part: str = "",
        lasts: bool = False,
        unit: str = "tokens",
    ) -> None:
        """Report a step; see `Grouping`.

        Args:
            layout: That of the pass.
            layer: Layer, from 1.
            group: Group of each patch, ``(B, rows * columns)`` or ``(B, heads, rows * columns)``.
            count: Tokens that the model goes on with.
            part: The part of the layer that runs on them.
            lasts: Whether the layers that follow do too.
            unit: What is counted, in the plural.
        """
        maps = group.detach().unflatten(-1, (layout.rows, layout.columns))
        self.steps.append(Grouping(layer, maps, count, part, lasts, unit))
