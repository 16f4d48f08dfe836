"""Distances between tokens and the reconstruction of dropped tokens from kept ones.

Both run in float32 at least, whatever the model's precision: a difference of squares in bfloat16 keeps no digit.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.amp.autocast_mode import is_autocast_available

_HALF = (torch.float16, torch.bfloat16)
P = ParamSpec("P")


def in_float32(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Run ``function`` outside autocast, with tensors of half precision as float32."""

    def widen(value: object) -> object:
        return value.float() if isinstance(value, Tensor) and value.dtype in _HALF else value

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        device = next(value.device.type for value in args if isinstance(value, Tensor))
        autocast_off = torch.autocast(device, enabled=False) if is_autocast_available(device) else nullcontext()
        with autocast_off:
            return function(*map(widen, args), **{key: widen(value) for key, value in kwargs.items()})  # type: ignore[arg-type]

    return wrapped


@in_float32
def squared_distances(tokens: Tensor, others: Tensor) -> Tensor:
    """Give the squared Euclidean distances ``(B, N, S)`` of ``(B, N, C)`` to ``(B, S, C)``."""
    norms = tokens.square().sum(-1)[:, :, None] + others.square().sum(-1)[:, None, :]
    return torch.baddbmm(norms, tokens, others.transpose(1, 2), alpha=-2).clamp_min(0)


@in_float32
def reconstruction_weights(tokens: Tensor, kept: Tensor, temperature: float, neighbours: int) -> Tensor:
    """Weights that rebuild tokens from kept ones (Liang et al. 2022, section 3.3).

    The weight falls exponentially with the squared distance; all but the ``neighbours`` largest of a row
    are 0 (ties with the last stay); rows are L2-normalised, as the reference implementation does.

    Args:
        tokens: Features of the tokens to rebuild, ``(B, Q, C)``.
        kept: Features of the tokens to rebuild them from, ``(B, S, C)``.
        temperature: Factor of the squared distance in the exponent.
        neighbours: Number of kept tokens that take part, cut to ``S``.

    Returns:
        ``(B, Q, S)`` in float32.
    """
    weights = torch.exp(-temperature * squared_distances(tokens, kept))
    smallest = weights.topk(min(neighbours, kept.shape[1]), dim=-1).values[..., -1:]
    return F.normalize(weights.where(weights >= smallest, 0.0), dim=-1)


def reconstruction_multiply_adds(tokens: int, kept: int, neighbours: int, width: int) -> int:
    """Count the multiply-adds of rebuilding tokens from kept ones in the published convention."""
    neighbours = min(neighbours, kept)
    distances = (tokens + kept) * width + tokens * kept * (width + 1)
    return distances + 3 * tokens * neighbours + tokens * neighbours * width


@in_float32
def rebuild(weights: Tensor, values: Tensor) -> Tensor:
    """Apply reconstruction weights ``(B, Q, S)`` to values ``(B, S, K)``."""
    return weights @ values
