"""The models that are compared: baseline and reduced, on one set of weights, at a precision, compiled or not."""

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..errors import ConfigError
from ..evaluation.compiling import one_graph, require_compiler
from ..models import Segmenter, with_reducer
from ..models.segmenter.architecture import Architecture, ConventionName

Precision = Literal["32-true", "bf16-true", "16-true", "bf16-mixed", "16-mixed"]
Compile = bool | Literal["reduce-overhead"]
_LIGHTNINGS_ALIASES = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
_DTYPES = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
_MOST_GRAPHS = 256


def parse_precision(asked: Any) -> Precision:
    """Return a trainer's precision under its full name; ``None`` is float32.

    Raises:
        ConfigError: It is not a precision that can be benchmarked.
    """
    name = "32-true" if asked is None else _LIGHTNINGS_ALIASES.get(str(asked), str(asked))
    for known in get_args(Precision):
        if name == known:
            precision: Precision = known
            return precision
    raise ConfigError(f"precision {asked} is not supported here: choose {', '.join(get_args(Precision))}")


def choose_device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu`` or ``cuda`` means on this machine.

    Raises:
        ConfigError: CUDA is asked for and not available.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: PyTorch finds no CUDA device on this machine; use --device cpu")
    return torch.device("cuda", 0) if name != "cpu" and torch.cuda.is_available() else torch.device("cpu")


def input_dtype(precision: Precision) -> torch.dtype:
    """Return the dtype of weights and images; at a mixed precision they stay in float32."""
    number, kind = precision.split("-")
    return _DTYPES[number] if kind == "true" else torch.float32


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context that a forward pass runs in, as under Lightning's precision of that name."""
    number, kind = precision.split("-")
    return torch.autocast(device.type, _DTYPES[number]) if kind == "mixed" else nullcontext()


def patch_logits(model: Segmenter, images: Tensor) -> Tensor:
    """Return logits at patch resolution, ``(B, K, rows, columns)``, of images ``(B, 3, H, W)``."""
    return model.segment_patches(images).logits


@dataclass(frozen=True)
class Variant:
    """One of the two models that are compared; ``forward`` runs it, compiled or not."""

    model: Segmenter
    precision: Precision
    device: torch.device
    forward: Callable[[Segmenter, Tensor], Tensor] = patch_logits

    def window(self, images: Tensor) -> Tensor:
        """Run the forward pass that is timed."""
        with torch.inference_mode(), autocast(self.precision, self.device):
            return self.forward(self.model, images)

    def window_uncompiled(self, images: Tensor) -> Tensor:
        """Run the forward pass as it is before compilation."""
        with torch.inference_mode(), autocast(self.precision, self.device):
            return patch_logits(self.model, images)


def make_variants(model: Segmenter, precision: Precision, device: torch.device, compiled: Compile) -> list[Variant]:
    """Return the baseline and, where the model has a reducer, the reduced variant.

    Args:
        model: The model, on the device.
        precision: As Lightning names it; unless it is a mixed one, the weights are converted in place.
        device: Where to compute.
        compiled: Whether to compile, or the mode of ``torch.compile``.

    Raises:
        ConfigError: This PyTorch version does not compile reducers correctly.
    """
    if compiled:
        require_compiler(model.reducer)
    model.to(input_dtype(precision))
    models = [with_reducer(model, None), *([model] if model.reducer is not None else [])]
    return [
        Variant(
            each, precision, device, compile_forward(compiled, one_graph(each.reducer)) if compiled else patch_logits
        )
        for each in models
    ]


def compile_forward(compiled: Compile, fullgraph: bool) -> Callable[[Segmenter, Tensor], Tensor]:
    """Return the compiled forward pass; it is compiled anew for every input shape where it is one graph.

    Args:
        compiled: ``True`` or a mode of ``torch.compile``.
        fullgraph: Whether a model that cannot be compiled as one graph is an error.
    """
    # Both variants, each batch size and (ACT) each layer count against one limit, beyond which nothing is compiled.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_GRAPHS)
    mode = compiled if isinstance(compiled, str) else None
    # With graph breaks, shapes may follow the content: compiling for each of them would never end.
    fast = torch.compile(patch_logits, fullgraph=fullgraph, dynamic=False if fullgraph else None, mode=mode)
    if mode is None:
        return fast

    def step(model: Segmenter, images: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return fast(model, images)

    return step


def forget_compiled() -> None:
    """Drop everything that was compiled, with the models and CUDA graphs that it holds."""
    torch._dynamo.reset()
    gc.collect()  # models and their compiled code refer to each other


def untrained_segmenter(architecture: Architecture, convention: ConventionName, seed: int = 0) -> Segmenter:
    """Return a model with random weights, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Segmenter(architecture, convention).eval()
