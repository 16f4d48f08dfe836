"""The model to measure: with its reducer and without, on one set of weights, at a precision, compiled or not."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..segmenter.model import Segmentation, Segmenter

Precision = Literal["32-true", "bf16-true", "16-true", "bf16-mixed", "16-mixed"]
Compile = bool | Literal["reduce-overhead"]
_DTYPES = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}

_MOST_GRAPHS = 256


def without_reducer(model: Segmenter) -> Segmenter:
    """Give the same model, on the same weights, without its reducer."""
    unreduced = copy.copy(model)
    unreduced.reducer = None
    return unreduced


def input_dtype(precision: Precision) -> torch.dtype:
    """Give the type of weights and images; at a mixed precision they stay in float32."""
    number, kind = precision.split("-")
    return _DTYPES[number] if kind == "true" else torch.float32


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Give the context that a forward pass runs in, as Lightning's precision of that name does."""
    number, kind = precision.split("-")
    return torch.autocast(device.type, _DTYPES[number]) if kind == "mixed" else nullcontext()


@dataclass(frozen=True)
class Side:
    """One of the two models that are compared."""

    model: Segmenter
    precision: Precision
    device: torch.device

    def window(self, images: Tensor) -> Segmentation:
        """Run the window forward: ``(B, 3, H, W)`` to logits at patch resolution."""
        with torch.inference_mode(), autocast(self.precision, self.device):
            return self.model.segment_patches(images)

    def window_uncompiled(self, images: Tensor) -> Segmentation:
        """Run the window forward as it is before compilation, for what looks into its operators."""
        with torch.inference_mode(), autocast(self.precision, self.device):
            return Segmenter.segment_patches(self.model, images)


def make_sides(
    model: Segmenter, precision: Precision, device: torch.device, compiled: Compile, whole_graph: bool
) -> list[Side]:
    """Make the unreduced side and, where the model has a reducer, the reduced one.

    Args:
        model: The model, on the device.
        precision: As Lightning names it; the weights are converted in place where it is not a mixed one.
        device: Where to compute.
        compiled: Whether to compile ``segment_patches``, or the mode of ``torch.compile``.
        whole_graph: Whether a reduced model that cannot be compiled in one piece is an error.
    """
    model.to(input_dtype(precision))
    sides = [Side(without_reducer(model), precision, device)]
    if model.reducer is not None:
        sides.append(Side(copy.copy(model), precision, device))
    if compiled:
        for side in sides:
            fullgraph = whole_graph or side.model.reducer is None
            fast = compile_call(side.model.segment_patches, compiled, fullgraph)
            side.model.segment_patches = fast  # type: ignore[method-assign,assignment]
    return sides


def compile_call(
    call: Callable[[Tensor], Segmentation], compiled: Compile, fullgraph: bool
) -> Callable[[Tensor], Segmentation]:
    """Compile a window forward for each shape of its input; with CUDA graphs every call is a step of its own."""
    # Both sides, each batch size and, of ACT, each layer count against one limit; beyond it nothing is compiled.
    torch._dynamo.config.recompile_limit = _MOST_GRAPHS
    mode = compiled if isinstance(compiled, str) else None
    fast = torch.compile(call, fullgraph=fullgraph, dynamic=False, mode=mode)
    if mode is None:
        return fast

    def step(images: Tensor) -> Segmentation:
        torch.compiler.cudagraph_mark_step_begin()
        return fast(images)

    return step
