"""ACT (Zheng et al. 2020, "End-to-End Object Detection with Adaptive Clustering Transformer")."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ReducerError, checks_arguments
from ..regions import region
from .base import EncoderShape, Reducer, Reduction, TokenLayout
from .blocks import attention_residual, join_heads, mlp_residual, split_heads
from .distances import in_float32
from .picking import across_images, count_members, group_means
from .spaces import IntRange, SearchRange

BUCKET_WIDTH = 8.0  # width of a hash bucket along a random direction (the reference implementation's value)
BITS = 2  # by which each further bucket is shifted before all are summed


class ACT(Reducer):
    """Group queries by locality-sensitive hashing and let each group share one attention result.

    Queries with the same hash (Zheng et al. 2020, section 3.2) attend as their mean; every one gets the
    result. The random directions are the same for all images and windows, so results do not depend on order.
    A GPU synchronises with the host once in every layer, for the number of groups.

    Args:
        query_hashes: Number of random directions, 1 to 32; more make more and smaller groups.
        seed: Seed of the random directions.

    Raises:
        ReducerError: ``query_hashes`` or ``seed`` is out of its range.
    """

    shapes_depend_on_content = True

    @checks_arguments
    def __init__(self, query_hashes: int, seed: int = 0) -> None:
        if not 1 <= query_hashes <= 64 // BITS:
            raise ReducerError(f"query_hashes={query_hashes} must lie between 1 and {64 // BITS}")
        if not 0 <= seed < 1 << 63:
            raise ReducerError(f"seed={seed} must lie between 0 and {(1 << 63) - 1}")
        self.query_hashes = query_hashes
        self.seed = seed

    @classmethod
    def search_space(cls, encoder: EncoderShape) -> Mapping[str, SearchRange]:
        """Vary the hashes."""
        return {"query_hashes": IntRange(8, 64 // BITS)}

    def start(self, layout: TokenLayout) -> "ACTReduction":
        """Begin one forward pass."""
        return ACTReduction(self, layout)


class ACTReduction(Reduction):
    """One forward pass of `ACT`; keeps the number of groups per layer, image and head."""

    def __init__(self, settings: ACT, layout: TokenLayout) -> None:
        super().__init__(layout)
        self.settings = settings
        self.groups: list[Tensor] = []  # one (B, heads) per layer

    def layer(self, layer: int, block: Any, tokens: Tensor) -> Tensor:
        """Run a block with grouped queries in its attention."""
        tokens = attention_residual(block, tokens, lambda x: self._attend(layer, block.attn, x))
        return mlp_residual(block, tokens)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # the number of groups depends on the values
    def _attend(self, layer: int, attention: Any, tokens: Tensor) -> Tensor:
        query, key, value = split_heads(attention, tokens)
        with region("act: group"):
            hashes, seed = self.settings.query_hashes, self.settings.seed
            directions = random_directions(attention.head_dim, hashes, seed, layer, tokens.device)
            groups = Groups.of(hash_queries(query, *directions))
            self.groups.append(groups.count)
            if self.recorder is not None:
                number = groups.number[..., self.layout.prefix :]
                self.recorder.add(self.layout, layer, number, groups.count, part="attention", unit="queries")
            means = groups.means(query)
        result = F.scaled_dot_product_attention(means, key, value, scale=1.0)
        with region("act: restore"):
            return join_heads(attention, groups.restore(result))

    def queries(self, layer: int, tokens: int) -> int:
        """Return the most groups of any image and head in a layer."""
        return int(self.groups[layer - 1].max())

    def is_identity(self) -> Tensor:
        """Return for each image True if every query of every layer and head was alone in its group."""
        tokens = self.layout.prefix + self.layout.patches
        return (torch.stack(self.groups) == tokens).all(dim=2).all(dim=0)


@lru_cache(maxsize=128)
def random_directions(head_dim: int, hashes: int, seed: int, layer: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return a layer's random directions ``(1, D, hashes)`` and offsets ``(1, hashes, 1)``, in float32.

    They are drawn on the CPU, layer by layer, from one generator as if it were seeded before each pass.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode(False):  # a later caller could not differentiate through inference tensors
        for _ in range(layer):
            directions = torch.randn(1, head_dim, hashes, generator=generator)
            offsets = torch.rand(1, hashes, 1, generator=generator)
        return directions.to(device), offsets.to(device)


@in_float32
def hash_queries(query: Tensor, directions: Tensor, offsets: Tensor) -> Tensor:
    """Hash queries ``(B, heads, N, D)`` to codes ``(B, heads, N)`` in int64.

    A code is the sum of the buckets along all directions, each shifted left by its number of bits; it wraps as int64
    does. The reference implementation subtracts each direction's smallest bucket first, which changes all codes of a
    head by the same number and is left out: only equality of codes matters.
    """
    projected = query @ directions.to(query.dtype) + offsets.to(query.dtype).transpose(1, 2)
    shifts = BITS * torch.arange(projected.shape[-1], device=query.device)
    return ((projected / BUCKET_WIDTH).floor().long() << shifts).sum(dim=-1)


@dataclass(frozen=True)
class Groups:
    """Queries with the same code."""

    number: Tensor  # (B, heads, N): the group of each query, from 0
    order: Tensor  # (B, heads, N): indices that sort the queries by group
    count: Tensor  # (B, heads): number of groups
    most: int

    @classmethod
    def of(cls, codes: Tensor) -> "Groups":
        """Number the distinct codes ``(B, heads, N)`` of each head from 0, in ascending order."""
        ordered, order = codes.sort(dim=-1)
        numbers = F.pad((ordered[..., 1:] != ordered[..., :-1]).long(), (1, 0)).cumsum(dim=-1)
        count = numbers[..., -1] + 1
        return cls(torch.empty_like(codes).scatter_(-1, order, numbers), order, count, int(count.max()))

    def means(self, query: Tensor) -> Tensor:
        """Average queries ``(B, heads, N, D)`` by group to ``(B, heads, most, D)``; 0 beyond a head's last group."""
        heads, tokens = query.shape[1:3]
        # In memory the heads of a token are adjacent.
        rows = across_images(self.order, tokens) * heads + torch.arange(heads, device=query.device)[:, None]
        return group_means(query.transpose(1, 2).flatten(0, 2), rows, count_members(self.number, self.most))

    def restore(self, result: Tensor) -> Tensor:
        """Copy each group's result to its queries: ``(B, heads, most, D)`` to ``(B, N, heads, D)``."""
        heads = result.shape[1]
        number = self.number.transpose(1, 2)
        rows = across_images(number, self.most) * heads + torch.arange(heads, device=result.device)
        return result.transpose(1, 2).flatten(0, 2).index_select(0, rows.flatten()).unflatten(0, number.shape)
