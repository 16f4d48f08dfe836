"""What the two sides of a comparison cost, counted rather than timed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..models.segmenter.model import Segmenter
from .flops import count_multiply_adds
from .operations import Operations, count_operations
from .sides import without_reducer
from .tokens import TokenCounts, count_tokens


@dataclass(frozen=True)
class SideCosts:
    """Counts of one image."""

    multiply_adds: int  # in the published convention
    operations: Operations
    tokens: TokenCounts


@dataclass(frozen=True)
class Costs:
    """Counts of both sides; ``reduced`` is ``None`` without a reducer."""

    unreduced: SideCosts
    reduced: SideCosts | None
    by_content: bool  # whether the reduced counts are those of one image, and others differ

    @property
    def ratio(self) -> float | None:
        """FLOP ratio in the published convention: unreduced over reduced."""
        return self.gflops()["ratio"]

    def gflops(self) -> dict[str, float | None]:
        """Give both sides in the published convention."""
        return self._compare(lambda side: side.multiply_adds)

    def true_gflops(self) -> dict[str, Any]:
        """Give both sides' true FLOPs, by kind too, and the operators that could not be counted."""
        sides = {"unreduced": self.unreduced.operations}
        if self.reduced is not None:
            sides["reduced"] = self.reduced.operations
        return {
            **self._compare(lambda side: side.operations.total),
            "by_kind": {
                name: {kind: flops / 1e9 for kind, flops in side.by_kind.items()} for name, side in sides.items()
            },
            "uncounted": sorted({name for side in sides.values() for name in side.uncounted}),
        }

    def _compare(self, count: Callable[[SideCosts], int]) -> dict[str, float | None]:
        unreduced = count(self.unreduced)
        if self.reduced is None:
            return {"unreduced": unreduced / 1e9, "reduced": None, "ratio": None}
        reduced = count(self.reduced)
        return {"unreduced": unreduced / 1e9, "reduced": reduced / 1e9, "ratio": unreduced / reduced}


def count_costs(model: Segmenter, image: Tensor) -> Costs:
    """Count both sides of a model, without computing where that gives the same counts.

    Args:
        model: The model with its reducer.
        image: One real crop ``(1, 3, H, W)`` on the model's device, in float32 as the model.
    """
    # Reducers may part their work otherwise on a GPU than on a CPU, and then they do not cost the same. A pass on the
    # ``meta`` device stands for one on a CPU; on any other device the pass itself has to be made.
    real = image.device.type != "cpu"
    costs = Costs(_count(without_reducer(model), image, real), None, by_content=False)
    if model.reducer is None:
        return costs
    by_content = model.reducer.shapes_depend_on_content
    return replace(costs, reduced=_count(model, image, real or by_content), by_content=by_content)


def on_meta(model: Segmenter) -> Segmenter:
    """Give a model of the same sizes and reducer that holds no numbers."""
    with torch.device("meta"):
        return Segmenter(model.architecture, model.convention.name, model.reducer).eval()


def _count(model: Segmenter, image: Tensor, real: bool) -> SideCosts:
    if not real:
        model, image = on_meta(model), image.to("meta")
    return SideCosts(count_multiply_adds(model, image), count_operations(model, image), count_tokens(model, image))
