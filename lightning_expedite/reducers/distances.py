"""Distances between tokens and the reconstruction of dropped tokens from kept ones.

Both run in float32 at least, whatever the model's precision: a difference of squares in bfloat16 keeps no digit.
Only the products of two tokens run on the half-precision matrix units where there are any: two bfloat16 numbers
multiply exactly in float32, in which those units add up.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.amp.autocast_mode import is_autocast_available

_HALF = (torch.float16, torch.bfloat16)
P = ParamSpec("P")
T = TypeVar("T")


def autocast_off(device: str) -> AbstractContextManager[None]:
    """Keep autocast from a block, at no cost where it is off already."""
    if is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def widen(value: T) -> T:
    """Give a tensor of half precision as float32, and everything else as it is."""
    return value.float() if isinstance(value, Tensor) and value.dtype in _HALF else value  # type: ignore[return-value]


def in_float32(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Run ``function`` outside autocast, with tensors of half precision as float32."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        device = next(value.device.type for value in args if isinstance(value, Tensor))
        with autocast_off(device):
            return function(*map(widen, args), **{key: widen(value) for key, value in kwargs.items()})  # type: ignore[arg-type]

    return wrapped


def matmul_fp32(left: Tensor, right: Tensor, stored: torch.dtype) -> Tensor:
    """Multiply matrices, adding up in float32 or wider, on half-precision units where the factors allow it.

    Args:
        left: ``(B, N, C)``.
        right: ``(B, C, S)``.
        stored: Type that holds all elements of both without loss. Two numbers of half precision multiply exactly in
            float32, so that their matrix units give what a conversion to float32 before would give.

    Returns:
        ``(B, N, S)``.
    """
    device = left.device.type
    with autocast_off(device):
        if stored in _HALF and device == "cuda":
            return torch.bmm(left.to(stored), right.to(stored), out_dtype=torch.float32)
        left, right = widen(left), widen(right)
        if stored != torch.bfloat16 or device != "cpu" or torch.compiler.is_compiling() or torch.is_grad_enabled():
            return left @ right
        result = left.new_empty(len(left), left.shape[1], right.shape[2])
        with bfloat16_matrix_units():  # which oneDNN uses for single matrices alone, not for batches of them
            for one, other, out in zip(left, right, result, strict=True):
                torch.mm(one, other, out=out)
        return result


def to_matmul_dtype(tokens: Tensor) -> Tensor:
    """Give tokens as `matmul_fp32` takes them fastest: a CPU would convert them each time, a GPU need not at all."""
    return tokens if tokens.is_cuda else widen(tokens)


@contextmanager
def bfloat16_matrix_units() -> Iterator[None]:
    """Let the CPU multiply float32 matrices on its bfloat16 units, adding up in float32; it holds for all threads."""
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def squared_norms(tokens: Tensor) -> Tensor:
    """Give the squared Euclidean norms ``(B, N)`` of ``(B, N, C)`` in float32 or wider."""
    return torch.linalg.vector_norm(tokens, dim=-1, dtype=torch.promote_types(tokens.dtype, torch.float32)).square()


def squared_distances(tokens: Tensor, others: Tensor) -> Tensor:
    """Give the squared Euclidean distances of tokens ``(B, N, C)`` to others ``(B, S, C)`` of the same type.

    Returns:
        ``(B, N, S)`` in float32 or wider.
    """
    distances = matmul_fp32(tokens, others.transpose(1, 2), tokens.dtype).mul_(-2)
    distances += squared_norms(tokens)[:, :, None]
    distances += squared_norms(others)[:, None, :]
    return distances.clamp_min_(0)


def reconstruction_weights(tokens: Tensor, kept: Tensor, temperature: float, neighbours: int) -> Tensor:
    """Weights that rebuild tokens from kept ones (Liang et al. 2022, section 3.3).

    The weight falls exponentially with the squared distance; all but the ``neighbours`` largest of a row
    are 0 (ties with the last stay); rows are L2-normalised, as the reference implementation does.

    Args:
        tokens: Features of the tokens to rebuild, ``(B, Q, C)``.
        kept: Features of the tokens to rebuild them from, ``(B, S, C)``, of the same type.
        temperature: Factor of the squared distance in the exponent.
        neighbours: Number of kept tokens that take part, cut to ``S``.

    Returns:
        ``(B, Q, S)`` in float32.
    """
    weights = squared_distances(tokens, kept).mul_(-temperature).exp_()
    smallest = weights.topk(min(neighbours, kept.shape[1]), dim=-1).values[..., -1:]
    return F.normalize(weights.masked_fill(weights < smallest, 0.0), dim=-1)


def reconstruction_multiply_adds(tokens: int, kept: int, neighbours: int, width: int) -> int:
    """Count the multiply-adds of rebuilding tokens from kept ones in the published convention."""
    neighbours = min(neighbours, kept)
    distances = (tokens + kept) * width + tokens * kept * (width + 1)
    return distances + 3 * tokens * neighbours + tokens * neighbours * width


@in_float32
def rebuild(weights: Tensor, values: Tensor) -> Tensor:
    """Apply reconstruction weights ``(B, Q, S)`` to values ``(B, S, K)``."""
    return weights @ values
