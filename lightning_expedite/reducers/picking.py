"""Gathering and averaging rows of tokens, faster than ``gather`` and ``scatter_add`` by element."""

import torch
import torch.nn.functional as F
from torch import Tensor


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Gather tokens ``(B, k, C)`` of ``(B, N, C)`` by index ``(B, k)``."""
    rows = across_images(index, tokens.shape[1])
    return tokens.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, index.shape)


def across_images(index: Tensor, size: int) -> Tensor:
    """Turn an index ``(B, ...)`` within each image's ``size`` rows into one over the rows of all images."""
    if index.shape[0] == 1:
        return index
    first = size * torch.arange(index.shape[0], device=index.device)
    return index + first.view(-1, *[1] * (index.ndim - 1))


def group_means(table: Tensor, rows: Tensor, members: Tensor) -> Tensor:
    """Average rows of a table by group.

    Args:
        table: ``(R, C)``.
        rows: Indices of the rows, in any shape: those of the first group, then those of the second, and so on.
        members: Number of rows of each group, ``(..., S)``; their sum is the number of ``rows``.

    Returns:
        ``(..., S, C)``; 0 for an empty group.
    """
    sizes = members.flatten()
    weights = sizes.clamp_min(1).to(table.dtype).reciprocal().repeat_interleave(sizes, output_size=rows.numel())
    means = F.embedding_bag(rows.flatten(), table, sizes.cumsum(0) - sizes, mode="sum", per_sample_weights=weights)
    return means.unflatten(0, members.shape)


def scatter_means(tokens: Tensor, group: Tensor, groups: int) -> Tensor:
    """Average tokens ``(B, N, C)`` by group ``(B, N)`` to ``(B, groups, C)``; no group may be empty.

    Equals `group_means` up to the order of additions, with operators that every runtime has: ONNX would run an
    embedding bag as a loop.
    """
    sums = tokens.new_zeros(tokens.shape[0], groups, tokens.shape[-1])
    sums = sums.scatter_add(1, group[..., None].expand_as(tokens), tokens)
    return sums / count_members(group, groups)[..., None].to(tokens.dtype)


def count_members(group: Tensor, groups: int) -> Tensor:
    """Count how often each number from 0 to ``groups - 1`` occurs in a row of ``(..., N)``: ``(..., groups)``."""
    counts = torch.zeros(*group.shape[:-1], groups, dtype=torch.long, device=group.device)
    return counts.scatter_add_(-1, group, torch.ones_like(group))
