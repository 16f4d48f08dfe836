"""Distances between tokens, in float32 or wider whatever the model's precision.

A difference of squares cancels all digits of bfloat16. Only the matrix products use half-precision units where there
are any: two bfloat16 numbers multiply exactly in float32, in which those units accumulate.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.amp.autocast_mode import is_autocast_available

_HALF = (torch.float16, torch.bfloat16)
P = ParamSpec("P")
T = TypeVar("T")


def autocast_off(device: str) -> AbstractContextManager[None]:
    """Disable autocast in a block, at no cost where it is off already."""
    if is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def widen(value: T) -> T:
    """Return a half-precision tensor as float32, and everything else as it is."""
    return value.float() if isinstance(value, Tensor) and value.dtype in _HALF else value  # type: ignore[return-value]


def in_float32(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Run ``function`` outside autocast, with half-precision tensors as float32."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        device = next(value.device.type for value in args if isinstance(value, Tensor))
        with autocast_off(device):
            return function(*map(widen, args), **kwargs)  # type: ignore[arg-type]

    return wrapped


def matmul_fp32(a: Tensor, b: Tensor, storage_dtype: torch.dtype) -> Tensor:
    """Multiply matrices and accumulate in float32 or wider, on half-precision units where the factors allow it.

    Args:
        a: ``(B, N, C)``.
        b: ``(B, C, S)``.
        storage_dtype: Type that holds all elements of both without loss. If it is a half-precision type, products are
            exact in float32, and half-precision units return what a conversion to float32 would return.
    """
    device = a.device.type
    with autocast_off(device):
        if storage_dtype in _HALF and device == "cuda":
            return torch.bmm(a.to(storage_dtype), b.to(storage_dtype), out_dtype=torch.float32)
        a, b = widen(a), widen(b)
        has_units = storage_dtype == torch.bfloat16 and device == "cpu"
        if not has_units or torch.compiler.is_compiling() or torch.is_grad_enabled():
            return a @ b
        result = a.new_empty(len(a), a.shape[1], b.shape[2])
        with bfloat16_matrix_units():  # oneDNN uses them for single matrices only, not for batches
            for left, right, out in zip(a, b, result, strict=True):
                torch.mm(left, right, out=out)
        return result


def to_matmul_dtype(x: Tensor) -> Tensor:
    """Convert once what `matmul_fp32` would convert in every call: to float32 on a CPU, not at all on a GPU."""
    return x if x.is_cuda else widen(x)


@contextmanager
def bfloat16_matrix_units() -> Iterator[None]:
    """Allow float32 products on the CPU's bfloat16 units, accumulated in float32; applies to all threads."""
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    previous = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = previous


def squared_norms(x: Tensor) -> Tensor:
    """Return the squared Euclidean norms ``(B, N)`` of tokens ``(B, N, C)`` in float32 or wider."""
    return torch.linalg.vector_norm(x, dim=-1, dtype=torch.promote_types(x.dtype, torch.float32)).square()


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared Euclidean distances ``(B, N, S)`` of tokens ``(B, N, C)`` and ``(B, S, C)``, as above."""
    distances = matmul_fp32(x, y.transpose(1, 2), x.dtype).mul_(-2)
    distances += squared_norms(x)[:, :, None]
    distances += squared_norms(y)[:, None, :]
    return distances.clamp_min_(0)
