"""Picking and averaging rows of tokens: whole rows at a time, where ``gather`` and ``scatter_add`` go by element."""

import torch
import torch.nn.functional as F
from torch import Tensor


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens ``(B, k, C)`` of ``(B, N, C)`` by index ``(B, k)``."""
    rows = across_images(index, tokens.shape[1])
    return tokens.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, index.shape)


def across_images(index: Tensor, size: int) -> Tensor:
    """Turn an index ``(B, ...)`` within each image's ``size`` rows into one over the rows of all images."""
    if len(index) == 1:
        return index
    first = size * torch.arange(len(index), device=index.device)
    return index + first.view(-1, *[1] * (index.ndim - 1))


def group_means(table: Tensor, rows: Tensor, members: Tensor) -> Tensor:
    """Average rows of a table group by group.

    Args:
        table: ``(R, C)``.
        rows: Numbers ``(n,)`` of the rows, those of the first group first, then those of the second, ...
        members: How many rows each group has, ``(S,)``, in all ``n``.

    Returns:
        ``(S, C)``; 0 for a group without rows.
    """
    share = members.clamp_min(1).to(table.dtype).reciprocal().repeat_interleave(members, output_size=len(rows))
    return F.embedding_bag(rows, table, members.cumsum(0) - members, mode="sum", per_sample_weights=share)
