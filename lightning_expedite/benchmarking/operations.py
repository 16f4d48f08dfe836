"""True FLOPs of a forward pass: every operator that computes, counted as it is called."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..models.segmenter.model import Segmenter
from .operation_costs import FREE, PRICED


@dataclass(frozen=True)
class Operations:
    """FLOPs of a forward pass by kind (`lightning_expedite.benchmarking.operation_costs`).

    ``uncounted`` names operators that are neither priced nor known to be free; their cost is missing.
    """

    by_kind: Mapping[str, int]
    uncounted: tuple[str, ...] = field(default=())

    @property
    def total(self) -> int:
        """Sum over all kinds."""
        return sum(self.by_kind.values())


class OperationCounter(TorchDispatchMode):
    """Counts what is called inside ``with OperationCounter() as counter:``, in inference mode."""

    def __init__(self) -> None:
        super().__init__()
        self._flops: Counter[str] = Counter()
        self._uncounted: set[str] = set()

    @property
    def operations(self) -> Operations:
        """What was counted so far."""
        return Operations(dict(self._flops), tuple(sorted(self._uncounted)))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and add what it costs; one without a price is taken apart first, where that is possible."""
        named = kwargs or {}
        name = operator_name(func)
        if name not in PRICED and name not in FREE:
            with self:
                result = func.decompose(*args, **named)
            if result is not NotImplemented:
                return result
        result = func(*args, **named)
        if name in PRICED:
            for kind, cost in PRICED[name]:
                self._flops[kind] += cost(args, named, result)
        elif name not in FREE and not func.is_view and func.namespace == "aten":
            self._uncounted.add(name)
        elif func.namespace not in ("aten", "prim", "prims", "profiler"):
            self._uncounted.add(f"{func.namespace}.{name}")
        return result


def operator_name(func: Any) -> str:
    """Give an operator's name without its overload; one that works in place has the name of its other form."""
    name = str(func.overloadpacket.__name__)
    return name if name.startswith("__") else name.removesuffix("_")


def count_operations(model: Segmenter, images: Tensor) -> Operations:
    """Count the true FLOPs of a batch, from images to logits at patch resolution.

    What a reducer prepares once for all passes (masks of neighbourhoods, random directions) is not counted.

    Args:
        model: The model with its reducer. On the ``meta`` device nothing is computed; a reducer whose shapes depend
            on content (ACT) needs a real device and real images.
        images: ``(B, 3, H, W)`` on the model's device.
    """
    return count_calls(lambda: model.segment_patches(images))


def count_calls(call: Callable[[], object]) -> Operations:
    """Count the true FLOPs of the second of two calls: the first fills caches."""
    with torch.inference_mode():
        call()
        with OperationCounter() as counter:
            call()
    return counter.operations
