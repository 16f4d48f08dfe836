"""The model to measure: with its reducer and without, on one set of weights, at a precision, compiled or not."""

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..evaluation.compiling import one_graph, require_compiler
from ..models.segmenter.model import Segmenter, with_reducer

Precision = Literal["32-true", "bf16-true", "16-true", "bf16-mixed", "16-mixed"]
Compile = bool | Literal["reduce-overhead"]
_DTYPES = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}

_MOST_GRAPHS = 256


def without_reducer(model: Segmenter) -> Segmenter:
    """Give the same model, on the same weights, without its reducer."""
    return with_reducer(model, None)


def input_dtype(precision: Precision) -> torch.dtype:
    """Give the type of weights and images; at a mixed precision they stay in float32."""
    number, kind = precision.split("-")
    return _DTYPES[number] if kind == "true" else torch.float32


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Give the context that a forward pass runs in, as Lightning's precision of that name does."""
    number, kind = precision.split("-")
    return torch.autocast(device.type, _DTYPES[number]) if kind == "mixed" else nullcontext()


def patch_logits(model: Segmenter, images: Tensor) -> Tensor:
    """Run the window forward: ``(B, 3, H, W)`` to logits at patch resolution, ``(B, K, rows, columns)``."""
    return model.segment_patches(images).logits


@dataclass(frozen=True)
class Side:
    """One of the two models that are compared; ``forward`` is how it is run, compiled or as it is."""

    model: Segmenter
    precision: Precision
    device: torch.device
    forward: Callable[[Segmenter, Tensor], Tensor] = patch_logits

    def window(self, images: Tensor) -> Tensor:
        """Run the window forward."""
        with torch.inference_mode(), autocast(self.precision, self.device):
            return self.forward(self.model, images)

    def window_uncompiled(self, images: Tensor) -> Tensor:
        """Run the window forward as it is before compilation."""
        with torch.inference_mode(), autocast(self.precision, self.device):
            return patch_logits(self.model, images)


def make_sides(model: Segmenter, precision: Precision, device: torch.device, compiled: Compile) -> list[Side]:
    """Make the unreduced side and, where the model has a reducer, the reduced one.

    Args:
        model: The model, on the device.
        precision: As Lightning names it; the weights are converted in place where it is not a mixed one.
        device: Where to compute.
        compiled: Whether to compile, or the mode of ``torch.compile``.

    Raises:
        ConfigError: This PyTorch is not known to compile the reducer rightly.
    """
    if compiled:
        require_compiler(model.reducer)
    model.to(input_dtype(precision))
    models = [without_reducer(model), *([model] if model.reducer is not None else [])]
    return [
        Side(one, precision, device, compile_forward(compiled, one_graph(one.reducer)) if compiled else patch_logits)
        for one in models
    ]


def forget_compiled() -> None:
    """Drop all that was compiled, with the models and CUDA graphs that it holds."""
    torch._dynamo.reset()
    gc.collect()  # models and what is compiled of them refer to each other


def compile_forward(compiled: Compile, whole: bool) -> Callable[[Segmenter, Tensor], Tensor]:
    """Compile the window forward; for each shape of its input where it is one graph.

    With CUDA graphs every call is a step of its own.

    Args:
        compiled: ``True`` or a mode of ``torch.compile``.
        whole: Whether a model that cannot be compiled as one graph is an error.
    """
    # Both sides, each batch size and, of ACT, each layer count against one limit; beyond it nothing is compiled.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_GRAPHS)
    mode = compiled if isinstance(compiled, str) else None
    # Without one graph, shapes may follow the content: compiling for each of them would never end.
    fast = torch.compile(patch_logits, fullgraph=whole, dynamic=False if whole else None, mode=mode)
    if mode is None:
        return fast

    def step(model: Segmenter, images: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return fast(model, images)

    return step
