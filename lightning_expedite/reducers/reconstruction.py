"""Reconstruction of removed tokens from kept ones (Liang et al. 2022, section 3.3), in float32 or wider."""

import torch.nn.functional as F
from torch import Tensor

from .distances import in_float32, squared_distances


def reconstruction_weights(tokens: Tensor, kept: Tensor, temperature: float, neighbours: int) -> Tensor:
    """Compute the weights that reconstruct tokens from kept ones.

    The weight decreases exponentially with the squared distance; all but the ``neighbours`` largest of a row
    are 0 (ties with the last are kept); rows are L2-normalised, as in the reference implementation.

    Args:
        tokens: Features of the tokens to reconstruct, ``(B, Q, C)``.
        kept: Features of the kept tokens, ``(B, S, C)``, of the same type.
        temperature: Factor of the squared distance in the exponent.
        neighbours: Number of kept tokens that contribute, at most ``S``.

    Returns:
        ``(B, Q, S)`` in float32 or wider.
    """
    weights = squared_distances(tokens, kept).mul_(-temperature).exp_()
    smallest = weights.topk(min(neighbours, kept.shape[1]), dim=-1).values[..., -1:]
    return F.normalize(weights.masked_fill(weights < smallest, 0.0), dim=-1)


def reconstruction_multiply_adds(tokens: int, kept: int, neighbours: int, width: int) -> int:
    """Count the multiply-adds of reconstructing tokens from kept ones in the published convention."""
    neighbours = min(neighbours, kept)
    distances = (tokens + kept) * width + tokens * kept * (width + 1)
    return distances + 3 * tokens * neighbours + tokens * neighbours * width


@in_float32
def reconstruct(weights: Tensor, values: Tensor) -> Tensor:
    """Apply reconstruction weights ``(B, Q, S)`` to values ``(B, S, K)``."""
    return weights @ values
