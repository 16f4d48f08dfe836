"""Picking tokens by index: whole rows at a time, where ``Tensor.gather`` goes element by element."""

import torch
from torch import Tensor


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens ``(B, k, C)`` of ``(B, N, C)`` by index ``(B, k)``."""
    rows = across_images(index, tokens.shape[1])
    return tokens.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, index.shape)


def across_images(index: Tensor, size: int) -> Tensor:
    """Turn an index ``(B, k)`` within each image's ``size`` rows into one over the rows of all images."""
    if len(index) == 1:
        return index
    return index + size * torch.arange(len(index), device=index.device)[:, None]
