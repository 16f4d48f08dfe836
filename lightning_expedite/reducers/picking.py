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
    if index.shape[0] == 1:
        return index
    first = size * torch.arange(index.shape[0], device=index.device)
    return index + first.view(-1, *[1] * (index.ndim - 1))


def group_means(table: Tensor, rows: Tensor, members: Tensor) -> Tensor:
    """Average rows of a table group by group.

    Args:
        table: ``(R, C)``.
        rows: Numbers of the rows, in any shape; of those of the first group, then those of the second, ...
        members: How many rows each group has, ``(..., S)``, in all as many as there are ``rows``.

    Returns:
        ``(..., S, C)``; 0 for a group without rows.
    """
    sizes = members.flatten()
    share = sizes.clamp_min(1).to(table.dtype).reciprocal().repeat_interleave(sizes, output_size=rows.numel())
    means = F.embedding_bag(rows.flatten(), table, sizes.cumsum(0) - sizes, mode="sum", per_sample_weights=share)
    return means.unflatten(0, members.shape)


def scatter_means(tokens: Tensor, group: Tensor, groups: int) -> Tensor:
    """Average tokens ``(B, N, C)`` by the number ``(B, N)`` of their group, every one of which has members.

    It gives what `group_means` does, up to the order of additions, from operators that every runtime has: a bag of
    embeddings is a loop in ONNX.

    Returns:
        ``(B, groups, C)``.
    """
    sums = tokens.new_zeros(tokens.shape[0], groups, tokens.shape[-1])
    sums = sums.scatter_add(1, group[..., None].expand_as(tokens), tokens)
    return sums / count_members(group, groups)[..., None].to(tokens.dtype)


def count_members(group: Tensor, groups: int) -> Tensor:
    """Count how often each of the numbers 0 to ``groups - 1`` stands in a row of ``(..., N)``: ``(..., groups)``."""
    counts = torch.zeros(*group.shape[:-1], groups, dtype=torch.long, device=group.device)
    return counts.scatter_add_(-1, group, torch.ones_like(group))
