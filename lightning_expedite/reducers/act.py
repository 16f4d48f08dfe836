"""ACT (Zheng et al. 2020, "End-to-End Object Detection with Adaptive Clustering Transformer")."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ReducerError
from .base import Reducer, Reduction, TokenLayout, attention_residual, join_heads, mlp_residual, split_heads
from .distances import in_float32

BUCKET_WIDTH = 8.0  # width of a hash bucket along a random direction (the reference implementation's value)
BITS = 2  # bits by which each further hash is shifted before all are summed


class ACT(Reducer):
    """Let similar queries share one attention result: queries are grouped by locality-sensitive hashing.

    Queries with the same hash (Zheng et al. 2020, section 3.2) attend as their mean; every one gets the
    result. The random directions are the same for all images and windows, so results do not depend on order.
    Finding the number of groups makes a GPU wait for the host once in every layer.

    Args:
        query_hashes: Number of random directions, 1 to 32; more give more and smaller groups.
        seed: Seed of the random directions.

    Raises:
        ReducerError: ``query_hashes`` is out of its range.
    """

    def __init__(self, query_hashes: int, seed: int = 0) -> None:
        if not 1 <= query_hashes <= 64 // BITS:
            raise ReducerError(f"query_hashes={query_hashes} must lie between 1 and {64 // BITS}")
        self.query_hashes = query_hashes
        self.seed = seed
        self._draws: dict[tuple[int, torch.device], list[tuple[Tensor, Tensor]]] = {}

    def start(self, layout: TokenLayout) -> "ACTReduction":
        """Begin one forward pass."""
        return ACTReduction(self, layout)

    def directions(self, layer: int, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Give a layer's random directions ``(1, D, hashes)`` and offsets ``(1, hashes, 1)``, in float32.

        They are drawn on the CPU, layer after layer from one generator, as if it were seeded before each pass.
        """
        draws = self._draws.setdefault((head_dim, device), [])
        if len(draws) < layer:
            generator = torch.Generator().manual_seed(self.seed)
            draws[:] = [
                (
                    torch.randn(1, head_dim, self.query_hashes, generator=generator).to(device),
                    torch.rand(1, self.query_hashes, 1, generator=generator).to(device),
                )
                for _ in range(layer)
            ]
        return draws[layer - 1]


class ACTReduction(Reduction):
    """One forward pass of `ACT`; keeps the number of groups per layer, image and head."""

    def __init__(self, settings: ACT, layout: TokenLayout) -> None:
        super().__init__(layout)
        self.settings = settings
        self.groups: list[Tensor] = []  # one (B, heads) a layer

    def layer(self, layer: int, block: Any, tokens: Tensor) -> Tensor:
        """Run a block with grouped queries in its attention."""
        tokens = attention_residual(block, tokens, lambda x: self._attend(layer, block.attn, x))
        return mlp_residual(block, tokens)

    def _attend(self, layer: int, attention: Any, tokens: Tensor) -> Tensor:
        query, key, value = split_heads(attention, tokens)
        weight, offset = self.settings.directions(layer, attention.head_dim, tokens.device)
        group = group_equal(hash_queries(query, weight, offset))
        self.groups.append(group.amax(dim=-1) + 1)
        means = group_means(query, group, int(self.groups[-1].max()))
        result = F.scaled_dot_product_attention(means, key, value, scale=1.0)
        return join_heads(attention, result.gather(2, group[..., None].expand_as(query)))

    def queries(self, layer: int, tokens: int) -> int:
        """Give the most groups of any image and head in a layer."""
        return int(self.groups[layer - 1].max())

    def nothing_reduced(self) -> Tensor:
        """Tell for each image whether every query of every layer and head was alone in its group."""
        tokens = self.layout.prefix + self.layout.patches
        return (torch.stack(self.groups) == tokens).all(dim=2).all(dim=0)


@in_float32
def hash_queries(query: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    """Hash queries ``(B, heads, N, D)`` to codes ``(B, heads, N)`` in int64 (overflow wraps)."""
    weight, offset = weight.to(query.dtype), offset.to(query.dtype)
    buckets = torch.floor((query @ weight + offset.transpose(1, 2)) / BUCKET_WIDTH).long()
    buckets = buckets - buckets.amin(dim=2, keepdim=True)
    shifts = BITS * torch.arange(buckets.shape[-1], device=query.device)
    return (buckets << shifts).sum(dim=-1)


def group_equal(codes: Tensor) -> Tensor:
    """Number the distinct codes of each row of ``(..., N)`` from 0 and give every item its number."""
    ordered, order = codes.sort(dim=-1)
    first = F.pad((ordered[..., 1:] != ordered[..., :-1]).long(), (1, 0))
    return torch.empty_like(codes).scatter(-1, order, first.cumsum(dim=-1))


def group_means(query: Tensor, group: Tensor, groups: int) -> Tensor:
    """Average queries ``(B, heads, N, D)`` by group ``(B, heads, N)`` to ``(B, heads, groups, D)``."""
    batch, heads, _, channels = query.shape
    sums = query.new_zeros(batch, heads, groups, channels)
    sums = sums.scatter_add(2, group[..., None].expand_as(query), query)
    members = query.new_zeros(batch, heads, groups).scatter_add(2, group, torch.ones_like(query[..., 0]))
    return sums / members.clamp_min(1)[..., None]
